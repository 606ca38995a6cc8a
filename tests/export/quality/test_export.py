"""Calibrated exports from end to end."""

from pathlib import Path

import gguf
import numpy as np
import pytest

import sprat.demo
from sprat.errors import ExportError, InputError
from sprat.export.calibrated import calibrate, calibration_digest
from sprat.export.estimate import estimate_export
from sprat.export.options import ExportOptions
from sprat.export.pipeline import export
from sprat.export.prepare import prepare
from sprat.export.quality.imatrix import read_imatrix
from sprat.export.quality.measuring.layer_pass import LayerPass
from sprat.export.quality.measuring.score import difference, score
from sprat.export.source.checkpoint import Checkpoint
from sprat.progress import no_progress
from sprat.quant.formats import format_of_type
from sprat.runtime.files.gguf import GGUFFile

pytestmark = pytest.mark.usefixtures("short_texts")

SEQUENCES = [np.random.default_rng(seed).integers(4, 400, 40).astype(np.int32) for seed in range(12)]


@pytest.fixture
def text(text_file):
    return {"calibration": [text_file]}


def file_of(result):
    return result.bundle.artifact("gguf")


def scores(source, *files):
    checkpoint = Checkpoint.open(source)
    layers = LayerPass(checkpoint.spec, checkpoint, SEQUENCES)
    opened = {str(file): GGUFFile.open(file) for file in files}
    return score(layers, opened).values()


def test_as_many_bytes_and_closer_to_the_source(source, tmp_path, text):
    plain = export(source, tmp_path / "plain", quant="q4_0")
    best = export(source, tmp_path / "best", quality="best", match_size=file_of(plain), **text)
    size, limit = file_of(best).stat().st_size, file_of(plain).stat().st_size
    assert 0.99 * limit <= size <= limit
    blind, chosen = scores(source, file_of(plain), file_of(best))
    gain, error = difference(blind, chosen)
    assert gain > 3 * error
    report = best.bundle.manifest.quality
    assert report.level == "best"
    assert report.calibration_tokens > 500
    assert [step.name for step in report.steps] == ["search", "feedback", "descent"]
    assert report.rounding == [step.name for step in report.steps if step.taken][-1]


def test_stock_readers_see_the_same_weights(source, tmp_path, text):
    path = file_of(export(source, tmp_path / "out", quality="balanced", quant="q4_0", **text))
    ours = GGUFFile.open(path)
    for tensor in gguf.GGUFReader(path).tensors:
        weight = ours.weight(tensor.name)
        read = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        assert np.array_equal(read, weight.dequantize()), tensor.name
        assert format_of_type(tensor.tensor_type) is weight.format


def test_the_imatrix_is_written(source, tmp_path, text):
    export(source, tmp_path / "out", imatrix_out=tmp_path / "imatrix.gguf", **text)
    found = read_imatrix(tmp_path / "imatrix.gguf")
    assert "token_embd.weight" not in found
    assert found["blk.1.attn_output.weight"].shape[0] == 1
    assert all((rows > 0).any() for rows in found.values())


def test_fast_is_as_large_and_weights_its_search(source, tmp_path, monkeypatch):
    plain = export(source, tmp_path / "plain", quant="q5_0")
    fast = export(source, tmp_path / "fast", quant="q5_0", quality="fast")
    assert file_of(fast).stat().st_size <= 1.001 * file_of(plain).stat().st_size
    assert fast.bundle.manifest.quality.rounding == "search"
    assert fast.bundle.manifest.recipe == "fast"
    assert len({group.format for group in fast.groups}) > 2
    assert 100 < fast.bundle.manifest.quality.calibration_tokens <= 512
    monkeypatch.setattr("sprat.export.quality.plan.glance", lambda _tokenizer: [])
    equal = export(source, tmp_path / "equal", quant="q5_0", quality="fast")
    assert "all inputs count alike" in equal.bundle.manifest.quality.notes[0]
    assert file_of(equal).read_bytes() != file_of(fast).read_bytes()


@pytest.mark.slow
def test_fast_is_closer_to_a_trained_model(tmp_path):
    """Packaged costs are those of trained models; random weights have others."""
    plain, fast = (
        export(sprat.demo.path(), tmp_path / str(level), quant="q4_0", quality=level) for level in (None, "fast")
    )
    blind, chosen = scores(sprat.demo.path(), file_of(plain), file_of(fast))
    gain, error = difference(blind, chosen)
    assert gain > 2 * error


def test_bits_per_weight(source, tmp_path):
    result = export(source, tmp_path / "out", quality="fast", target_bpw=6.0)
    assert 5.9 < result.bits_per_weight <= 6.0


@pytest.mark.slow
def test_a_divergence_is_reached(source, tmp_path, text):
    loose = export(source, tmp_path / "loose", max_kld=0.02, **text)
    tight = export(source, tmp_path / "tight", max_kld=0.002, **text)
    for result, limit in ((loose, 0.02), (tight, 0.002)):
        taken = [step for step in result.bundle.manifest.quality.steps if step.taken][-1]
        assert 0 < taken.kld <= limit
    assert file_of(loose).stat().st_size < file_of(tight).stat().st_size


def test_the_same_command_does_nothing_and_another_is_refused(source, tmp_path, text):
    out = tmp_path / "out"
    first = export(source, out, quality="balanced", **text)
    again = export(source, out, quality="balanced", **text)
    assert "up to date" in again.notes[-1]
    assert again.bundle.manifest == first.bundle.manifest
    others = (
        {"quality": "best", **text},
        {"quality": "balanced", "quant": "q5_0", **text},
        {"quality": "balanced"},
        {},
    )
    for other in others:
        with pytest.raises(ExportError, match="another bundle"):
            export(source, out, **other)


def test_the_same_command_writes_the_same_bytes(source, tmp_path, text):
    one, two = (export(source, tmp_path / name, quality="best", **text) for name in ("one", "two"))
    assert file_of(one).read_bytes() == file_of(two).read_bytes()


def test_rules_of_the_user_win(source, tmp_path):
    result = export(source, tmp_path / "out", quality="fast", tensor_rules=["token_embd=f16"])
    assert next(group.format for group in result.groups if group.role == "token_embd") == "F16"


@pytest.mark.slow
def test_a_large_model_is_rounded_while_it_is_written(source, tmp_path, monkeypatch, text):
    whole = export(source, tmp_path / "whole", quality="best", **text)
    monkeypatch.setattr("sprat.export.quality.plan.MAX_COMPARED", 1000)
    streamed = export(source, tmp_path / "streamed", quality="best", **text)
    assert streamed.bundle.manifest.quality.rounding == "descent"
    assert "not compared" in streamed.bundle.manifest.quality.notes[0]
    if whole.bundle.manifest.quality.rounding == "descent":
        assert file_of(whole).read_bytes() == file_of(streamed).read_bytes()


@pytest.mark.slow
def test_a_large_model_keeps_within_the_expected_divergence(source, tmp_path, monkeypatch, text):
    monkeypatch.setattr("sprat.export.quality.plan.MAX_COMPARED", 1000)
    sizes = []
    for limit in (0.05, 0.005):
        result = export(source, tmp_path / str(limit), max_kld=limit, **text)
        quality = result.bundle.manifest.quality
        assert quality.expected_kld <= limit
        assert "went by the expected divergence" in quality.notes[1]
        sizes.append(file_of(result).stat().st_size)
    assert sizes[0] < sizes[1]
    with pytest.raises(InputError, match="of the largest file"):
        export(source, tmp_path / "none", max_kld=1e-12, **text)


@pytest.mark.parametrize("target", [{"target_size": 1000}, {"target_bpw": 1.0}, {"match_size": __file__}])
@pytest.mark.parametrize("level", ["fast", "balanced"])
def test_a_size_below_all_files_is_refused_before_anything_is_measured(source, tmp_path, monkeypatch, target, level):
    monkeypatch.setattr("sprat.export.quality.plan.measure_source", None)
    monkeypatch.setattr("sprat.export.calibrated.QualityPlanner.expected_time", None)
    for call in (export, estimate_export):
        with pytest.raises(InputError, match=r"smallest formats take .*; give"):
            call(source, tmp_path / "out", quality=level, **target)


def test_the_estimate_of_a_size_above_all_files_is_that_of_the_largest(source, tmp_path):
    estimate = estimate_export(source, tmp_path / "out", target_size="900GB")
    assert "at most about" in estimate.notes[-1]
    assert "GiB" not in estimate.notes[-1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"quality": "best", "formats": ["gguf", "onnx"]}, "--quality best writes one file"),
        ({"target_size": 1000}, "smallest formats take"),
        ({"target_bpw": 1.0}, "smallest formats take"),
        ({"max_kld": 1e-12}, "allow a larger divergence"),
    ],
)
def test_what_cannot_be_is_refused(source, tmp_path, options, match, text):
    with pytest.raises(InputError, match=match):
        export(source, tmp_path / "out", **options, **text)
    assert not (tmp_path / "out").exists()


def test_the_digest_of_a_calibrated_export_does_not_depend_on_what_it_chose(source, text):
    """Another process may publish the same export meanwhile: it is recognized after the calibration, too."""
    options = ExportOptions(quality="balanced", **text)
    before = prepare(source, Path("out"), options)
    after = calibrate(before, options, no_progress)
    assert after.recipe != before.recipe
    assert calibration_digest(after, options) == calibration_digest(before, options)


def test_only_bytes_in_files_are_said_to_resume(source, tmp_path, text):
    """Layers that were measured and tensors that were rounded in memory are none."""
    seen = []
    result = export(source, tmp_path / "out", quality="balanced", progress=seen.append, **text)
    written = [state for state in seen if state.resumes]
    assert {state.total for state in written} == {file_of(result).stat().st_size}
    assert any(state.what.startswith("feedback: ") for state in seen if not state.resumes)
    assert seen.index(written[0]) > max(seen.index(state) for state in seen if state.what == "comparing")
