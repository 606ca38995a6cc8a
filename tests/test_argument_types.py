"""Arguments of another type than a public function declares are named before anything runs."""

from pathlib import Path

import numpy as np
import pytest

import sprat
from sprat.boundary import public_call


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sprat.load(None), r"model is None \(NoneType\), expected str \| os\.PathLike\[str\]"),
        (lambda: sprat.load(b"x"), r"model is b'x' \(bytes\)"),
        (lambda: sprat.load("demo", context=1.5), r"context is 1\.5 \(float\), expected int \| None"),
        (lambda: sprat.load("demo", context="5"), r"context is '5' \(str\), expected int \| None"),
        (lambda: sprat.load("demo", context=True), r"context is True \(bool\)"),
        (lambda: sprat.load("demo", force=1), r"force is 1 \(int\), expected bool"),
        (lambda: sprat.Engine.load(5), r"path is 5 \(int\)"),
        (lambda: sprat.export("demo", "out", formats="gguf"), r"formats is 'gguf' \(str\), expected Sequence\[str\]"),
        (lambda: sprat.export("demo", "out", formats=[5]), r"formats is \[5\] \(list\)"),
        (lambda: sprat.export("demo", "out", align="x"), r"align is 'x' \(str\)"),
        (lambda: sprat.quantize("demo", "out", tensor_rules={"a": "b"}), r"tensor_rules is .* \(dict\)"),
        (lambda: sprat.report("results.jsonl"), r"results is 'results\.jsonl' \(str\)"),
        (lambda: sprat.verify("a", "b", max_kld="0.1"), r"max_kld is '0\.1' \(str\), expected float \| None"),
        (lambda: sprat.plan("demo", devices="rpi5-8gb"), r"devices is 'rpi5-8gb' \(str\)"),
        (lambda: sprat.bench(repetitions="x" * 100), r"repetitions is 'x{59}… \(str\), expected int$"),
    ],
)
def test_a_wrong_type_is_named(call, message):
    with pytest.raises(sprat.InputError, match=message):
        call()


@pytest.mark.parametrize("value", [1, np.int64(1), None])
def test_numbers_of_other_libraries_are_numbers(value):
    @public_call
    def take(count: int | None, share: float = 0.5) -> str:
        return "taken"

    assert take(value) == take(value, np.float32(0.5)) == take(value, 1) == "taken"


def test_a_missing_or_unknown_argument_is_pythons_type_error():
    with pytest.raises(TypeError, match="unknown keyword 'nothing'"):
        sprat.load("demo", nothing=1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'model'"):
        sprat.load()


def test_any_iterable_but_text_is_a_sequence():
    @public_call
    def take(paths: "sprat.boundary.Nothing") -> str:
        return "taken"

    assert take(5) == "taken"
    with pytest.raises(sprat.InputError):
        sprat.report(path for path in [Path("no-such-file")])
