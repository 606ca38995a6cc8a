"""The GGUF reader, compared with hand-made bytes and with the package ``gguf``."""

import struct
from pathlib import Path

import gguf as reference
import numpy as np
import pytest
from gguf_bytes import ARRAY, BOOL, STRING, gguf, key, small, tensor, text, text_key, u32_key

from sprat.errors import FormatError, ModelFileError
from sprat.quant.formats.read_only import any_format
from sprat.runtime.files.gguf import GGUFFile, TensorInfo
from sprat.runtime.files.gguf_header import ValueType


@pytest.fixture
def write(tmp_path: Path):
    def write(data: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return path

    return write


def test_a_hand_made_file_is_read(write):
    with GGUFFile.open(write(small())) as file:
        assert file.metadata == {"general.architecture": "llama", "a.number": 7, "a.flag": True}
        assert file.tensors == {
            "floats": TensorInfo("floats", (2, 8), 0, 224, 64),
            "blocks": TensorInfo("blocks", (32,), 2, 288, 18),
        }
        floats, blocks = file.weight("floats"), file.weight("blocks")
        assert floats.packed.shape == (2, 32)
        np.testing.assert_array_equal(floats.dequantize(), np.arange(16, dtype=np.float32).reshape(2, 8))
        nibbles = np.arange(16)
        np.testing.assert_array_equal(blocks.dequantize(), np.concatenate([nibbles & 15, nibbles >> 4]) - 8.0)


def test_every_scalar_and_array_type_keeps_its_value(write):
    scalars = {
        ValueType.UINT8: ("<B", 255),
        ValueType.INT8: ("<b", -128),
        ValueType.UINT16: ("<H", 65535),
        ValueType.INT16: ("<h", -32768),
        ValueType.UINT32: ("<I", 4294967295),
        ValueType.INT32: ("<i", -2147483648),
        ValueType.FLOAT32: ("<f", 0.5),
        ValueType.UINT64: ("<Q", (1 << 64) - 1),
        ValueType.INT64: ("<q", -(1 << 63)),
        ValueType.FLOAT64: ("<d", 0.1),
    }
    keys = [key(f"one.{kind.name}", kind, struct.pack(code, value)) for kind, (code, value) in scalars.items()]
    keys += [
        key(f"two.{kind.name}", ARRAY, struct.pack("<IQ", kind, 2) + 2 * struct.pack(code, value))
        for kind, (code, value) in scalars.items()
    ]
    keys.append(key("two.BOOL", ARRAY, struct.pack("<IQ", BOOL, 2) + b"\0\1"))
    keys.append(key("two.STRING", ARRAY, struct.pack("<IQ", STRING, 2) + text("Ġthe") + text("")))
    with GGUFFile.open(write(gguf(keys))) as file:
        for kind, (_, value) in scalars.items():
            assert file.metadata[f"one.{kind.name}"] == value
            assert file.metadata[f"two.{kind.name}"].tolist() == [value, value]
            assert file.value_types[f"two.{kind.name}"] == (ValueType.ARRAY, kind)
        assert file.metadata["two.BOOL"].tolist() == [False, True]
        assert file.metadata["two.STRING"] == ["Ġthe", ""]


def test_the_data_starts_at_the_alignment(write):
    keys = [u32_key("general.alignment", 4096)]
    data = gguf(keys, [tensor("a", (1,))], struct.pack("<f", 1.5), alignment=4096)
    with GGUFFile.open(write(data)) as file:
        assert file.alignment == 4096
        assert file.tensors["a"].offset == 4096
        assert file.weight("a").dequantize().tolist() == [1.5]


def test_padding_after_the_last_tensor_is_optional(write):
    with GGUFFile.open(write(gguf(tensors=[tensor("a", (1,))], data=bytes(4)))) as file:
        assert file.tensors["a"].nbytes == 4


def test_a_view_outlives_the_file(write):
    with GGUFFile.open(write(small())) as file:
        weight = file.weight("floats")
    assert weight.dequantize()[1, 7] == 15


def test_one_expert_of_stacked_weights_is_a_view(write):
    data = gguf(tensors=[tensor("experts", (4, 2, 3))], data=struct.pack("<24f", *range(24)))
    with GGUFFile.open(write(data)) as file:
        expert = file.weight("experts")[2]
        assert expert.shape == (2, 4)
        assert expert.dequantize().tolist() == [[16, 17, 18, 19], [20, 21, 22, 23]]
        assert np.shares_memory(expert.packed, file.weight("experts").packed)


def test_an_unknown_tensor_name_is_a_model_file_error(write):
    with GGUFFile.open(write(small())) as file, pytest.raises(ModelFileError, match=r"no tensor 'nothing' among its 2"):
        file.weight("nothing")


@pytest.mark.parametrize("kind", ["IQ1_S", "IQ2_XS", "IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0"])
def test_a_read_only_format_is_dequantized_by_the_package_gguf(kind, write):
    ggml_type = reference.GGMLQuantizationType[kind]
    n_weights, n_bytes = reference.GGML_QUANT_SIZES[ggml_type]
    packed = np.random.default_rng(1).integers(0, 64, (3, 2 * n_bytes), np.uint8)
    data = gguf(tensors=[tensor("a", (2 * n_weights, 3), kind=ggml_type)], data=packed.tobytes())
    with GGUFFile.open(write(data)) as file:
        assert file.tensors["a"].type_name == kind
        np.testing.assert_array_equal(file.weight("a").dequantize(), reference.dequantize(packed, ggml_type))
        with pytest.raises(FormatError, match=f"{kind} can be read but not written"):
            any_format(ggml_type).quantize(np.zeros((1, n_weights), np.float32))


def test_integer_tensors_are_listed_but_cannot_be_dequantized(write):
    with GGUFFile.open(write(gguf(tensors=[tensor("a", (4,), kind=26)], data=bytes(16)))) as file:
        assert file.tensors["a"].type_name == "I32"
        with pytest.raises(FormatError, match="cannot dequantize I32"):
            file.weight("a").dequantize()


def test_read_only_formats_are_not_registered():
    from sprat.quant.formats import format_names

    any_format(int(reference.GGMLQuantizationType.IQ2_XS))
    assert "IQ2_XS" not in format_names()


def test_a_file_written_by_the_package_gguf_is_read_the_same(tmp_path):
    path = tmp_path / "reference.gguf"
    rng = np.random.default_rng(2)
    floats = rng.standard_normal((5, 96)).astype(np.float32)
    tokens = [f"token {index} é 🐟" for index in range(300)]
    writer = reference.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_float32("llama.rope.freq_base", 1e6)
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.token_type", [1] * 300)
    writer.add_tensor("a", floats)
    writer.add_tensor("b", reference.quantize(floats, reference.GGMLQuantizationType.Q5_0), raw_dtype=6)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile.open(path) as file:
        assert file.metadata["llama.block_count"] == 3
        assert file.metadata["tokenizer.ggml.tokens"] == tokens
        assert file.metadata["tokenizer.ggml.token_type"].tolist() == [1] * 300
        _assert_same_as_reference(file)


@pytest.mark.slow
def test_a_published_file_is_read_the_same(smollm2_gguf):
    with GGUFFile.open(smollm2_gguf) as file:
        assert len(file.tensors) == 272
        _assert_same_as_reference(file)


def _assert_same_as_reference(file: GGUFFile) -> None:
    expected = reference.GGUFReader(file.path)
    for name, field in expected.fields.items():
        if not name.startswith("GGUF."):
            value = file.metadata[name]
            assert (value.tolist() if isinstance(value, np.ndarray) else value) == field.contents(), name
    assert list(file.tensors) == [tensor.name for tensor in expected.tensors]
    for tensor_ in expected.tensors:
        info = file.tensors[tensor_.name]
        assert info.shape == tuple(tensor_.shape.tolist()[::-1])
        assert (info.offset, info.nbytes, info.format_type) == (
            tensor_.data_offset,
            tensor_.n_bytes,
            tensor_.tensor_type,
        )
        np.testing.assert_array_equal(file.weight(tensor_.name).packed.ravel(), tensor_.data.view(np.uint8).ravel())


def test_non_ascii_text_is_read(write):
    with GGUFFile.open(write(gguf([text_key("general.name", "学生 🐟")]))) as file:
        assert file.metadata["general.name"] == "学生 🐟"
