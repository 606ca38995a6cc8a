"""Calibrated ONNX exports: the same rounding, in symmetric blocks of 32 with 4 or 8 bits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx_ir")

from sprat.errors import InputError
from sprat.export.calibrated import calibrate
from sprat.export.options import ExportOptions
from sprat.export.pipeline import export
from sprat.export.prepare import prepare
from sprat.export.source.rows import read_rows
from sprat.export.verify.verify import verify
from sprat.progress import no_progress

pytestmark = pytest.mark.usefixtures("short_texts")


@pytest.fixture
def options(text_file):
    return ExportOptions(formats=["onnx"], quant="int4", quality="balanced", calibration=[text_file])


def test_stored_rows_are_the_rounded_ones(source, options):
    found = calibrate(prepare(source, Path("out"), options), options, no_progress)
    artifact = found.artifacts["onnx"]
    placed = {tensor.tensor.name: tensor.tensor for tensor in artifact.built.data.tensors}
    formats = {weight.format.name for weight in placed.values()}
    assert formats == {"F32", "INT4_G32", "INT8_G32"}
    down = placed["blk.1.attn_output.weight"]
    rows = read_rows(down.source.rows, 0, down.source.rows.n_rows)
    stored = np.concatenate([chunk.reshape(-1) for chunk in down.chunks()])
    codes = stored[: down.regions[0].nbytes].reshape(down.source.rows.n_rows, -1)
    packed = down.format.from_ggml(rows).reshape(len(rows), -1, down.format.block_bytes)
    assert np.array_equal(codes.reshape(len(rows), packed.shape[1], -1), packed[..., 2:])


@pytest.mark.parametrize("source", ["deepseek2"], indirect=True)
def test_gate_and_up_of_experts_have_one_format(source, options):
    for bits in (5.2, 6.0, 7.0):
        wanted = replace(options, target_bpw=bits)
        recipe = calibrate(prepare(source, Path("out"), wanted), wanted, no_progress).recipe
        gate, up = (recipe.choose(f"blk.1.ffn_{name}_exps.weight", (4, 32, 64)).format for name in ("gate", "up"))
        assert gate is up


def test_fast_and_balanced_run_in_onnxruntime(source, options, tmp_path):
    pytest.importorskip("onnxruntime")
    for level, text in (("fast", []), ("balanced", options.calibration)):
        made = export(source, tmp_path / level, formats=["onnx"], quant="int4", quality=level, calibration=text)
        found = verify(made.path, source, backends=["onnx"], max_tokens=64)
        assert found.passed
        assert 0 < found.quality["onnx"].mean_kld < 0.1
        assert export(source, made.path, formats=["onnx"], quant="int4", quality=level, calibration=text).notes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"formats": ["gguf", "onnx"]}, "give one --format"),
        ({"block_size": 64}, "in blocks of 32"),
        ({"portable": True}, "omit --portable"),
    ],
)
def test_what_onnx_cannot_store_is_refused(source, options, changed, message):
    wanted = replace(options, **changed)
    with pytest.raises(InputError, match=message):
        calibrate(prepare(source, Path("out"), wanted), wanted, no_progress)


def test_a_model_that_is_not_rounded_in_memory_is_refused(source, options, monkeypatch):
    monkeypatch.setattr("sprat.export.quality.plan.MAX_COMPARED", 1000)
    with pytest.raises(InputError, match="write a GGUF"):
        calibrate(prepare(source, Path("out"), options), options, no_progress)
