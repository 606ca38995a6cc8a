"""Quantized graphs in onnxruntime, against sprat's reference model with the dequantized weights."""

import numpy as np
import pytest
from tiny_checkpoint import write_checkpoint

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from onnx_models import Runner, artifact, write

from sprat.export.onnx import weights
from sprat.export.onnx.ort_version import FAST_QMOE
from sprat.export.source.checkpoint import Checkpoint
from sprat.quant.formats import get_format
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model
from sprat.runtime.weights import Weight

TOKENS = np.random.default_rng(3).integers(0, 512, 40)
ROUTED_INT8 = 0.02  # onnxruntime has no float32 kernel for 8-bit experts: it quantizes their activations


class Requantized:
    """A checkpoint's weights, quantized to ``formats`` and dequantized."""

    def __init__(self, checkpoint, formats):
        self._checkpoint, self._formats = checkpoint, formats

    @property
    def shapes(self):
        return self._checkpoint.shapes

    def __contains__(self, name):
        return name in self._checkpoint

    def check_unchanged(self):
        self._checkpoint.check_unchanged()

    def weight(self, name):
        weight = self._checkpoint.weight(name)
        dense, found = weight.dequantize(), self._formats[name]
        return Weight(name, get_format("F32"), weight.shape, found.dequantize(found.quantize(dense)).view(np.uint8))


@pytest.fixture(scope="module", params=["llama", "qwen2", "deepseek2"])
def checkpoint(request, tmp_path_factory):
    changes = {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 128}
    if request.param == "deepseek2":
        changes["moe_intermediate_size"] = 64
    return Checkpoint.open(write_checkpoint(tmp_path_factory.mktemp(request.param) / "tiny", request.param, **changes))


def stored_formats(checkpoint, quant, **options):
    """Canonical name -> format; gate and up of all experts may be one weight in the file."""
    placed = artifact(checkpoint, quant, **options).built.data.tensors
    formats = {found.tensor.name: found.tensor.format for found in placed}
    for name in list(formats):
        if "gate_up_exps" in name:
            formats |= {name.replace("gate_up", part): formats[name] for part in ("gate", "up")}
    return formats


@pytest.mark.parametrize("portable", [False, True], ids=["contrib", "portable"])
@pytest.mark.parametrize(
    ("quant", "block_size", "name"),
    [
        ("int4", 32, "INT4_G32"),
        ("int8", 32, "INT8_G32"),
        ("q4_1", 32, "INT4_G32A"),
        ("q4_0", 64, "INT4_G64"),
        ("q8_0", 128, "INT8_G128"),
        ("f16", 32, "F16"),
    ],
)
def test_logits_are_those_of_the_dequantized_weights(checkpoint, tmp_path, quant, block_size, name, portable):
    options = {"block_size": block_size, "accuracy_level": 0, "portable": portable}
    formats = stored_formats(checkpoint, quant, **options)
    assert formats["blk.0.attn_output.weight"].name == name
    model = Model(checkpoint.spec, Requantized(checkpoint, formats), ReferenceKernels())
    expected = model.forward(TOKENS, model.new_cache(len(TOKENS)), all_logits=True)
    found = Runner(write(tmp_path / "out", checkpoint, quant, **options), checkpoint.spec).in_chunks(TOKENS, 17)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("quant", "tolerance"), [("int4", 1e-4), ("q4_1", 1e-4), ("int8", ROUTED_INT8)])
def test_logits_of_qmoe_are_those_of_the_dequantized_weights(checkpoint, tmp_path, quant, tolerance):
    options = {"accuracy_level": 0, "ort": FAST_QMOE}
    model = Model(
        checkpoint.spec, Requantized(checkpoint, stored_formats(checkpoint, quant, **options)), ReferenceKernels()
    )
    expected = model.forward(TOKENS, model.new_cache(len(TOKENS)), all_logits=True)
    found = Runner(write(tmp_path / "out", checkpoint, quant, **options), checkpoint.spec).in_chunks(TOKENS, 17)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_int8_activations_are_a_small_error(checkpoint, tmp_path):
    exact, fast = (
        Runner(write(tmp_path / f"level-{level}", checkpoint, "int4", accuracy_level=level), checkpoint.spec)
        for level in (0, 4)
    )
    expected = exact.in_chunks(TOKENS)
    errors = np.abs(fast.in_chunks(TOKENS) - expected).max(axis=1) / np.abs(expected).max()
    assert 0 < np.median(errors) < 0.05


def test_rows_that_do_not_divide_into_groups_become_float16(tmp_path):
    odd = Checkpoint.open(write_checkpoint(tmp_path / "odd", "qwen2", num_hidden_layers=1, intermediate_size=80))
    formats = stored_formats(odd, "int4", block_size=128)
    assert formats["blk.0.ffn_down.weight"].name == "F16"
    assert formats["blk.0.ffn_up.weight"].name == "INT4_G64"


@pytest.mark.parametrize("quant", ["int4", "int8"])
def test_a_split_head_gives_the_same_logits(checkpoint, tmp_path, monkeypatch, quant):
    whole = Runner(write(tmp_path / "whole", checkpoint, quant), checkpoint.spec)
    monkeypatch.setattr(weights, "_MAX_PART_BYTES", 10_000)
    folder = write(tmp_path / "parts", checkpoint, quant)
    parts = Runner(folder, checkpoint.spec)
    assert (folder / "model.onnx").stat().st_size > (tmp_path / "whole" / "model.onnx").stat().st_size
    assert (folder / "model.onnx.data").read_bytes() == (tmp_path / "whole" / "model.onnx.data").read_bytes()
    np.testing.assert_allclose(parts([TOKENS]), whole([TOKENS]), atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "nbytes", "parts"), [(49_152, 28 << 20, 2), (151_936, 233 << 20, 16), (97, 1 << 30, 1)]
)
def test_the_head_is_split_into_the_fewest_equal_parts(rows, nbytes, parts):
    assert weights._n_parts(rows, nbytes) == parts
