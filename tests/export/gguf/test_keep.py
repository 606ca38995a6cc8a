"""``--quant keep``: a quantized GGUF into a bundle, its tensors unchanged."""

import gguf
import numpy as np
import pytest
from old_layout import write_old_layout
from split_gguf import split
from tiny_checkpoint import write_checkpoint

from sprat.errors import BackendError, InputError
from sprat.export.gguf.quantize import quantize
from sprat.export.inspection import inspect
from sprat.export.pipeline import export
from sprat.runtime.engine import Engine
from sprat.runtime.files.gguf import GGUFFile


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "source")


@pytest.fixture
def quantized(source, tmp_path):
    half = export(source, tmp_path / "f16", quant="f16", align=32).bundle.artifact()
    return quantize(half, tmp_path / "mixed.gguf", quant="q4_1", tensor_rules=["ffn_down=q5_0"]).file.path


def test_every_tensor_is_unchanged(quantized, tmp_path):
    result = export(quantized, tmp_path / "out", quant="keep")
    assert result.bundle.manifest.warnings == ()
    assert result.bundle.manifest.recipe == "keep"
    assert result.fallbacks == ()
    with GGUFFile.open(quantized) as before, GGUFFile.open(result.bundle.artifact()) as after:
        assert after.alignment == 32
        for name in before.names():
            assert before.tensors[name].format_type == after.tensors[name].format_type
            np.testing.assert_array_equal(before.weight(name).packed, after.weight(name).packed)
        for key in before.metadata.keys() - {"general.name", "general.basename", "general.size_label"}:
            assert np.array_equal(before.metadata[key], after.metadata[key]), key
    assert result.bundle.artifact().name.endswith("-Q4_1.gguf")
    with Engine.load(tmp_path / "out") as engine:
        assert engine.chat([{"role": "user", "content": "hello"}], max_tokens=2)


def test_formats_that_sprat_only_reads_are_kept(source, tmp_path):
    half = export(source, tmp_path / "f16", quant="f16", align=32).bundle.artifact()
    read_only = tmp_path / "mxfp4.gguf"
    reader = gguf.GGUFReader(half)
    writer = gguf.GGUFWriter(read_only, "deepseek2")
    for key, field in reader.fields.items():
        if key.startswith(("GGUF.", "general.architecture")):
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, list(field.contents()))
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    kind = gguf.GGMLQuantizationType.MXFP4
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        is_expert = "_exps" in tensor.name
        data = gguf.quantize(values, kind) if is_expert else np.array(tensor.data)
        writer.add_tensor(tensor.name, data, raw_dtype=kind if is_expert else tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    out = export(read_only, tmp_path / "out", quant="keep").bundle.artifact()
    with GGUFFile.open(read_only) as before, GGUFFile.open(out) as after:
        for name in before.names():
            np.testing.assert_array_equal(before.weight(name).packed, after.weight(name).packed)


def test_the_name_can_be_given(quantized, tmp_path):
    manifest = export(quantized, tmp_path / "out", quant="keep", name="me/Kitchen-Chat").bundle.manifest
    assert manifest.name == "me/Kitchen-Chat"
    assert manifest.artifacts[0].file == "Kitchen-8x310K-Chat-v1.0-Q4_1.gguf"
    with GGUFFile.open(tmp_path / "out" / manifest.artifacts[0].file) as file:
        assert file.name == "Kitchen-Chat"
    with pytest.raises(InputError, match="--name is empty"):
        export(quantized, tmp_path / "other", name=" ")


def test_rules_a_split_source_and_split_output_go_with_it(quantized, tmp_path):
    parts = split(quantized, tmp_path / "parts", max_tensors=30)
    result = export(parts[1], tmp_path / "out", quant="keep", tensor_rules=["^output=f16"], split=100_000)
    with GGUFFile.open(quantized) as before, GGUFFile.open(result.bundle.artifact()) as after:
        assert len(after.parts) > 1
        for name in before.tensors.keys() - {"output.weight"}:
            np.testing.assert_array_equal(before.weight(name).packed, after.weight(name).packed)
        assert after.tensors["output.weight"].type_name == "F16"


def test_an_old_file_is_converted(source, tmp_path):
    f32 = export(source, tmp_path / "f32", quant="f32", align=32).bundle.artifact()
    old = write_old_layout(f32, tmp_path / "old.gguf", "Q4_0")
    with GGUFFile.open(export(old, tmp_path / "out", quant="keep").bundle.artifact()) as file:
        assert file.tensors["blk.0.attn_k_b.weight"].type_name == "Q8_0"
        assert file.tensors["blk.0.attn_v_b.weight"].type_name == "Q4_0"


def test_it_needs_a_gguf_for_both(source, quantized, tmp_path):
    with pytest.raises(InputError, match="--quant keep copies the tensors of a GGUF into a GGUF, found a checkpoint"):
        export(source, tmp_path / "out", quant="keep")
    with pytest.raises(InputError, match="and --format gguf,onnx"):
        export(quantized, tmp_path / "out", quant="keep", formats=("gguf", "onnx"))


def test_grouped_v2_warns_that_llamacpp_differs(tmp_path):
    grouped = {"n_group": 4, "topk_group": 2, "topk_method": "group_limited_greedy"}
    source = write_checkpoint(tmp_path / "source", "deepseek2", **grouped)
    result = export(source, tmp_path / "out", quant="int8")
    (warning,) = result.bundle.manifest.warnings
    assert warning.startswith("llama.cpp and Ollama choose other experts")
    for path in (tmp_path / "out", result.bundle.artifact()):
        assert [note for note in inspect(path).notes if "other experts" in note] == [warning]
    with pytest.raises(BackendError, match=r"choose other experts.*; use the native backend"):
        Engine.load(result.bundle.path, backend="llamacpp")
