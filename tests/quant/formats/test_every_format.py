"""Properties of every block format: type numbers, dequantization, error bounds, messages, native bytes."""

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from weights import hard_weights, ordinary_weights

from sprat.errors import FormatError
from sprat.native import core
from sprat.quant.formats import BlockFormat, block, format_names, format_of_type, get_format
from sprat.quant.formats.shared.importance import RowImportance

native = pytest.mark.skipif(core is None, reason="without the native core")
FILE_TYPES = {
    "F32": "ALL_F32",
    "Q3_K": "MOSTLY_Q3_K_S",
    "Q4_K": "MOSTLY_Q4_K_S",
    "Q5_K": "MOSTLY_Q5_K_S",
    "MXFP4": "MOSTLY_MXFP4_MOE",
}
# Formats of llama.cpp that the package gguf has not yet: their own tests compare them with llama.cpp.
known_to_gguf = [name for name in format_names() if name in gguf.GGMLQuantizationType.__members__]

# Largest error relative to the block's absmax. A scale search may clip the absmax to reduce the other errors.
LARGEST_ERRORS = {
    "F32": 0,
    "F16": 2**-11,
    "BF16": 2**-8,
    "Q8_0": 1 / 254,
    "Q5_1": 1 / 31,
    "Q5_0": 1 / 16,
    "Q4_1": 1 / 15,
    "Q4_0": 1 / 8,
    "Q6_K": 1 / 16,
    "Q5_K": 1 / 8,
    "Q4_K": 1 / 4,
    "IQ4_NL": 1 / 3,
    "IQ4_XS": 1 / 3,
    "Q3_K": 1 / 2,
    "Q2_K": 1,
    "Q2_0": 1,
    "MXFP4": 1 / 2,
    "NVFP4": 1,
}
# Relative error on Gaussian weights; measured for formats with a scale search, and smaller than ggml's.
GAUSSIAN_ERRORS = {
    "F32": 0.0,
    "F16": 0.0003,
    "BF16": 0.002,
    "Q8_0": 0.0055,
    "Q6_K": 0.0170,
    "Q5_K": 0.0350,
    "Q5_1": 0.0385,
    "Q5_0": 0.0435,
    "Q4_K": 0.0705,
    "IQ4_NL": 0.0740,
    "Q4_1": 0.0800,
    "Q4_0": 0.0875,
    "IQ4_XS": 0.0750,
    "NVFP4": 0.0910,
    "MXFP4": 0.1130,
    "Q3_K": 0.1450,
    "Q2_K": 0.2660,
    "Q2_0": 0.3530,
}


def numpy_quantize(found: BlockFormat, weights: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return found.quantize_blocks(weights.reshape(-1, found.block_size))


def numpy_dequantize(found: BlockFormat, packed: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return found.dequantize_blocks(packed.reshape(-1, found.block_bytes))


@pytest.fixture(params=format_names())
def found(request) -> BlockFormat:
    return get_format(request.param)


@pytest.mark.parametrize("name", known_to_gguf)
def test_type_numbers_and_sizes_are_ggmls(name):
    found = get_format(name)
    kind = gguf.GGMLQuantizationType[found.name]
    assert found.ggml_type == kind
    assert (found.block_size, found.block_bytes) == gguf.GGML_QUANT_SIZES[kind]
    if found.name != "NVFP4":  # which gguf counts among the types of tensors only
        assert found.file_type == gguf.LlamaFileType[FILE_TYPES.get(found.name, f"MOSTLY_{found.name}")]
    assert format_of_type(kind) is found
    assert found.bits_per_weight == 8 * found.block_bytes / found.block_size


def test_a_fallback_has_smaller_blocks(found):
    if found.block_size > 1:
        assert get_format(found.fallback).block_size < found.block_size


@pytest.mark.parametrize("name", known_to_gguf)
def test_any_bytes_dequantize_as_in_the_gguf_package(name):
    found = get_format(name)
    packed = np.random.default_rng(3).integers(0, 256, (37, 8 * found.block_bytes), dtype=np.uint8)
    if name == "MXFP4":
        packed[:, ::17] %= 224  # larger scales are NaN here
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[found.name])
    np.testing.assert_array_equal(found.dequantize(packed), expected)
    np.testing.assert_array_equal(numpy_dequantize(found, packed).reshape(expected.shape), expected)


def test_the_error_on_gaussian_weights_is_at_most_the_measured_one(found):
    weights = ordinary_weights()["gaussian"]
    error = np.sqrt(np.mean((found.dequantize(found.quantize(weights)) - weights) ** 2) / np.mean(weights**2))
    assert error <= GAUSSIAN_ERRORS[found.name]


@pytest.mark.parametrize("name", format_names())
@settings(max_examples=25, deadline=None)
@given(weights=arrays(np.float32, (1, 256), elements=st.floats(-100, 100, width=32)))
def test_the_error_of_a_weight_is_within_the_bound_of_its_format(name, weights):
    found = get_format(name)
    errors = np.abs(found.dequantize(found.quantize(weights)) - weights).reshape(-1, found.block_size)
    largest = np.abs(weights).reshape(-1, found.block_size).max(axis=1, keepdims=True)
    rounded_scale = largest * 2.0**-10 + 1e-4  # a scale is float16, whose subnormals are 6e-8 apart
    assert (errors <= LARGEST_ERRORS[name] * largest + (rounded_scale if found.block_size > 1 else 1e-7)).all()


@native
@pytest.mark.parametrize("kind", hard_weights())
def test_native_and_numpy_bytes_are_equal(found, kind):
    weights = hard_weights()[kind]
    packed = numpy_quantize(found, weights)
    np.testing.assert_array_equal(found.quantize(weights).reshape(packed.shape), packed)
    np.testing.assert_array_equal(found.dequantize(packed), numpy_dequantize(found, packed))


@native
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "a scale per weight", "any bits"])
@pytest.mark.parametrize("max_lanes", [4, 8, 16])
def test_bytes_are_equal_at_every_vector_length(found, kind, max_lanes):
    weights = hard_weights()[kind]
    packed, unpacked = np.empty(found.row_bytes(weights.size), np.uint8), np.empty(weights.nbytes, np.uint8)
    core.convert(0, found.ggml_type, weights.reshape(-1).view(np.uint8), packed, max_lanes)
    np.testing.assert_array_equal(packed, numpy_quantize(found, weights).reshape(-1))
    core.convert(found.ggml_type, 0, packed, unpacked, max_lanes)
    np.testing.assert_array_equal(unpacked.view(np.float32), found.dequantize(packed))


@native
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "a scale per weight", "nearly all zeros", "any bits"])
@pytest.mark.parametrize("max_lanes", [4, 8, 16])
def test_native_and_numpy_bytes_with_importance_are_equal(found, kind, max_lanes):
    weights = hard_weights()[kind]
    rng = np.random.default_rng(6)
    distinct = np.exp(rng.normal(size=(3, weights.shape[1])) * [[0.5], [2], [20]]).astype(np.float32)
    distinct[1, 100:400] = 0
    which = np.arange(len(weights)) % 3
    packed = np.empty((len(weights), found.row_bytes(weights.shape[1])), np.uint8)
    core.quantize_weighted(found.ggml_type, weights, distinct, which, packed.reshape(-1), max_lanes)
    expected = RowImportance(distinct, which).blocks(0, len(weights), found.block_size)
    with np.errstate(all="ignore"):
        blocks = found.quantize_blocks(weights.reshape(-1, found.block_size), expected)
    np.testing.assert_array_equal(packed.reshape(blocks.shape), blocks)


@native
@pytest.mark.parametrize("n_blocks", [0, 1, 2, 3, 7, 17, 513])
def test_native_bytes_do_not_depend_on_the_number_of_blocks(found, n_blocks):
    weights = np.random.default_rng(n_blocks).standard_normal((513, found.block_size), np.float32)
    np.testing.assert_array_equal(found.quantize(weights[:n_blocks]), found.quantize(weights)[:n_blocks])


def test_numpy_gives_the_same_bytes_in_chunks(found, monkeypatch):
    weights = ordinary_weights()["student-t"][:9]
    expected = found.quantize(weights)
    monkeypatch.setattr(block.native, "convert", lambda *_: False)
    monkeypatch.setattr(block, "_CHUNK_WEIGHTS", 3 * 256)
    np.testing.assert_array_equal(found.quantize(weights), expected)
    np.testing.assert_array_equal(found.dequantize(expected), numpy_dequantize(found, expected).reshape(9, 512))


def test_leading_axes_are_kept_and_need_not_be_contiguous(found):
    weights = np.random.default_rng(1).standard_normal((3, 2, 512), np.float32)
    packed = found.quantize(weights)
    assert packed.shape == (3, 2, found.row_bytes(512))
    np.testing.assert_array_equal(found.quantize(weights[::2, ::-1]), packed[::2, ::-1])
    np.testing.assert_array_equal(found.dequantize(packed[::2, ::-1]), found.dequantize(packed)[::2, ::-1])


def test_read_only_and_unaligned_bytes_dequantize(found):
    packed = found.quantize(ordinary_weights()["gaussian"][:2])
    buffer = bytes(3) + packed.tobytes()
    view = np.frombuffer(buffer, np.uint8)[3:].reshape(packed.shape)
    np.testing.assert_array_equal(found.dequantize(view), found.dequantize(packed))


def test_a_row_that_is_not_a_multiple_of_the_block_is_an_error():
    with pytest.raises(
        FormatError, match=r"Q4_K: a row of 1408 weights is not a multiple of its block of 256; use Q5_0"
    ):
        get_format("Q4_K").quantize(np.zeros((2, 1408), np.float32))


def test_an_unknown_format_suggests_the_nearest():
    with pytest.raises(FormatError, match=r"did you mean 'Q4_K'"):
        get_format("q4_kk")
    with pytest.raises(FormatError, match="unknown ggml type 99"):
        format_of_type(99)


@native
def test_the_native_core_rejects_importance_of_another_shape():
    weights, importance, which = np.zeros((2, 64), np.float32), np.ones((1, 64), np.float32), np.zeros(2, np.int64)
    target = np.zeros(2 * 36, np.uint8)
    with pytest.raises(ValueError, match="has not the shape"):
        core.quantize_weighted(2, weights, importance[:, :32].copy(), which, target)
    with pytest.raises(ValueError, match="has no importance"):
        core.quantize_weighted(2, weights, importance, which + 1, target)
    with pytest.raises(ValueError, match="do not hold the same number"):
        core.quantize_weighted(2, weights, importance, which, target[:36])


@native
def test_the_native_core_rejects_partial_blocks():
    with pytest.raises(ValueError, match="17 bytes are not a whole number of blocks of 18 bytes"):
        core.convert(2, 0, np.zeros(17, np.uint8), np.zeros(128, np.uint8))
    with pytest.raises(ValueError, match="do not hold the same number of weights"):
        core.convert(2, 0, np.zeros(18, np.uint8), np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="ggml type 99 is not known"):
        core.convert(99, 0, np.zeros(18, np.uint8), np.zeros(4, np.uint8))
