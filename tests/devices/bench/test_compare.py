"""Two results files are compared if they have the same tests; every difference is named."""

import pytest
from bench_records import LIMITS, MODEL, measurement

from sprat.devices.bench.compare import compare, differences
from sprat.devices.bench.results import BenchTest, Label
from sprat.errors import ResultsError


def vary(**changed):
    """The model with changed fields."""
    return type(MODEL)(**{name: getattr(MODEL, name) for name in MODEL.__struct_fields__} | changed)


def test_tests_are_paired_by_name_and_the_verdict_comes_from_the_interval():
    before = [measurement(samples_tps=(10.0, 10.1, 9.9)), measurement(work=BenchTest.prefill(512))]
    after = [measurement(work=BenchTest.prefill(512)), measurement(samples_tps=(12.0, 12.1, 11.9))]
    decode, prefill = compare(before, after)
    assert decode.before.work == decode.after.work == BenchTest.decode(128)
    assert decode.ratio.value == pytest.approx(1.2, rel=1e-3)
    assert decode.verdict == "faster"
    assert prefill.verdict == "no difference"
    assert compare(after, before)[1].verdict == "slower"


def test_predictions_are_not_compared():
    predicted = measurement(label=Label.PREDICTED, device="x", machine=None, samples_tps=(1.0,))
    assert len(compare([measurement(), predicted], [measurement(), predicted])) == 1


def test_other_differences_are_listed():
    before = measurement(versions={"sprat": "0.1.0"}, settings={"chunk": 512})
    after = measurement(versions={"sprat": "0.2.0"}, settings={"chunk": 512}, backend="llamacpp", device="rpi5-8gb")
    assert differences(before, after) == [
        "label: measured -> measured on rpi5-8gb",
        "backend: native -> llamacpp",
        "sprat: 0.1.0 -> 0.2.0",
    ]
    assert differences(before, before) == []


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"work": BenchTest.decode(64)}, "only the first file has tg128; only the second file has tg64"),
        ({}, {"model": vary(quant="Q8_0")}, "quant is Q4_0 in the first and Q8_0 in the second"),
        ({}, {"model": vary(digest="sha256:ff")}, "digests of the model's files differ"),
        ({}, {"label": Label.EMULATED, "device": "x", "emulation": LIMITS}, "first is measured, the second emulated"),
        ({}, {"label": Label.PREDICTED, "device": "x"}, "the second file has only predictions"),
        ({"samples_tps": (1.0,)}, {}, "single sample"),
    ],
)
def test_different_tests_or_models_are_an_error(before, after, message):
    with pytest.raises(ResultsError, match=message):
        compare([measurement(**before)], [measurement(**after)])


def test_digests_of_random_weights_may_differ():
    before, after = (vary(random_weights=True, digest=digest) for digest in ("sampled:1", "sampled:2"))
    assert len(compare([measurement(model=before)], [measurement(model=after)])) == 1


def test_all_problems_are_named_at_once():
    before = [measurement(), measurement()]
    after = [measurement(model=vary(name="other", n_params=1))]
    with pytest.raises(ResultsError, match=r"tg128 more than once.*name is student.*n_params"):
        compare(before, after)
