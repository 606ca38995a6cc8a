"""A finite weight never becomes infinite: an export stops before it writes, and names what holds the weight."""

import json

import gguf
import numpy as np
import pytest
from safetensors_files import save
from tiny_checkpoint import CONFIGS, weights, write_checkpoint

from sprat.errors import CheckpointError, ExportError, FormatError
from sprat.export import pipeline
from sprat.export.gguf.quantize import quantize
from sprat.export.pipeline import export
from sprat.quant.formats import format_names, get_format
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.integrity.finite_check import check_finite

NAME = "model.layers.0.mlp.down_proj.weight"
FALLBACKS = {  # of rows of 96 weights
    "Q6_K": "Q8_0",
    "Q5_K": "Q5_1",
    "Q4_K": "Q5_0",
    "IQ4_XS": "IQ4_NL",
    "Q3_K": "Q4_0",
    "Q2_K": "Q4_0",
    "Q2_0": "Q4_0",
    "NVFP4": "MXFP4",
}


@pytest.fixture
def without_running(monkeypatch):
    """Only what is stored matters here: products with the largest float32 overflow."""
    monkeypatch.setattr(pipeline, "check_first_logits", lambda _: ())


def checkpoint(folder, value, architecture="qwen2", name=NAME, kind="F32"):
    write_checkpoint(folder, architecture)
    tensors = weights(CONFIGS[architecture])
    tensors[name].flat[5] = value
    save(folder / "model.safetensors", tensors, kind)
    return folder


@pytest.mark.usefixtures("without_running")
@pytest.mark.parametrize("quant", format_names())
@pytest.mark.parametrize("sign", [1, -1])
def test_a_weight_beyond_the_range_stops_the_export_and_the_named_format_holds_it(quant, sign, tmp_path):
    stored = get_format(FALLBACKS.get(quant, quant))
    if quant == "F32":
        pytest.skip("no float32 exceeds it")
    value = sign * min(1.01 * stored.largest, 3.4e38)
    source = checkpoint(tmp_path / "source", value)
    with pytest.raises(
        FormatError, match=rf"blk\.0\.ffn_down\.weight holds {value:g}.* at \[0, 5\]".replace("+", r"\+")
    ) as error:
        export(source, tmp_path / "out", quant=quant)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("out*"))
    rule = str(error.value).split("--tensor '")[1].split("'")[0]
    bundle = export(source, tmp_path / "out", quant=quant, tensor_rules=[rule]).bundle
    with GGUFFile.open(bundle.artifact("gguf")) as file:
        check_finite(file, every=True)
        np.testing.assert_allclose(file.weight("blk.0.ffn_down.weight").dequantize().flat[5], value, rtol=0.01)


@pytest.mark.usefixtures("without_running")
@pytest.mark.parametrize("quant", format_names())
def test_the_largest_weight_of_each_format_is_exported_and_finite(quant, tmp_path):
    stored = get_format(FALLBACKS.get(quant, quant))
    value = np.nextafter(np.float32(stored.largest), np.float32(0))
    source = checkpoint(tmp_path / "source", value)
    bundle = export(source, tmp_path / "out", quant=quant).bundle
    with GGUFFile.open(bundle.artifact("gguf")) as file:
        check_finite(file, every=True)
        np.testing.assert_allclose(file.weight("blk.0.ffn_down.weight").dequantize().flat[5], value, rtol=0.15)


@pytest.mark.slow
@pytest.mark.usefixtures("without_running")
@pytest.mark.parametrize("options", [{"block_size": 32}, {"block_size": 64}, {"portable": True}])
@pytest.mark.parametrize("quant", ["int4", "int8", "f16", "bf16", "q4_1"])
def test_onnx_scales_stay_finite(quant, options, tmp_path):
    source = checkpoint(tmp_path / "source", 3.4e38)
    with pytest.raises(FormatError, match=r"blk\.0\.ffn_down\.weight holds 3\.4e\+38") as error:
        export(source, tmp_path / "out", quant=quant, formats=("onnx",), **options)
    rule = str(error.value).split("--tensor '")[1].split("'")[0]
    export(source, tmp_path / "out", quant=quant, formats=("onnx",), **options, tensor_rules=[rule])


@pytest.mark.usefixtures("without_running")
def test_a_fused_expert_is_named_by_a_rule_that_matches_its_two_tensors(tmp_path):
    source = checkpoint(tmp_path / "source", 1e9, "deepseek2", "model.layers.1.mlp.experts.3.up_proj.weight")
    with pytest.raises(FormatError, match="ffn_gate_up_exps") as error:
        export(source, tmp_path / "out", quant="int4", formats=("onnx",), ort="1.31")
    rule = str(error.value).split("--tensor '")[1].split("'")[0]
    export(source, tmp_path / "out", quant="int4", formats=("onnx",), ort="1.31", tensor_rules=[rule])


@pytest.mark.usefixtures("without_running")
@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_norms_are_float32_and_hold_every_float(kind, tmp_path):
    from safetensors_files import bf16

    name, value = "model.layers.0.input_layernorm.weight", 3e38
    source = checkpoint(tmp_path / "source", value, name=name)
    if kind == "BF16":
        tensors = weights(CONFIGS["qwen2"])
        tensors[name].flat[5] = value
        save(source / "model.safetensors", {key: bf16(array) for key, array in tensors.items()}, "BF16")
    bundle = export(source, tmp_path / "out", quant="f16", tensor_rules=["attn_=f16"], formats=("gguf", "onnx"))
    with GGUFFile.open(bundle.bundle.artifact("gguf")) as file:
        check_finite(file, every=True)


@pytest.mark.parametrize("quant", [name for name in format_names() if name != "F32"])
def test_quantize_stops_before_it_writes(quant, tmp_path):
    source, out = tmp_path / "in.gguf", tmp_path / "out.gguf"
    write_gguf(source, 3.4e38)
    with pytest.raises(FormatError, match=r"a\.weight holds 3\.4e\+38"):
        quantize(source, out, quant=quant)
    assert not out.exists()
    assert not list(tmp_path.glob("out*"))


def test_quantize_reads_the_range_of_a_quantized_source(tmp_path):
    """Q8_0 holds 8e6 and F16 does not; a source that is copied is not checked against its own format."""
    source = tmp_path / "in.gguf"
    write_gguf(source, 8e6, gguf.GGMLQuantizationType.Q8_0)
    with pytest.raises(FormatError, match=r"a\.weight holds 8.*e\+06"):
        quantize(source, tmp_path / "out.gguf", quant="f16")
    quantize(source, tmp_path / "out.gguf", quant="q8_0")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_quantize_refuses_weights_that_are_not_finite(value, tmp_path):
    write_gguf(tmp_path / "in.gguf", value)
    with pytest.raises(CheckpointError, match=r"1 tensors with NaN or infinite weights: 'a\.weight'"):
        quantize(tmp_path / "in.gguf", tmp_path / "out.gguf", quant="q8_0")


def write_gguf(path, value, kind=None):
    weights = np.random.default_rng(0).standard_normal((4, 256)).astype(np.float32)
    weights[2, 7] = value
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("a.weight", weights if kind is None else gguf.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_manifest_of_a_checkpoint_in_range_has_no_warning(tmp_path):
    export(checkpoint(tmp_path / "source", 6e4), tmp_path / "out", quant="f16")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["warnings"] == []


def test_a_model_whose_logits_overflow_is_not_published(tmp_path):
    source = checkpoint(tmp_path / "source", 3e38)
    with pytest.raises(ExportError, match=r"F32\.gguf: the written model computes NaN or Inf"):
        export(source, tmp_path / "out", quant="f32")
    assert not list(tmp_path.glob("out*"))
