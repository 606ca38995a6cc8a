"""F32, F16, BF16: literal bytes, rounding, NaN and Inf."""

import numpy as np
import pytest

from sprat.quant.formats import BF16, F16, F32, get_format


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("F32", "0000803f 00000080 000020c1"),
        ("F16", "003c 0080 00c9"),
        ("BF16", "803f 0080 20c1"),
    ],
)
def test_bytes_are_little_endian(name, expected):
    packed = get_format(name).quantize(np.float32([[1, -0.0, -10]]))
    assert packed.tobytes() == bytes.fromhex(expected)


@pytest.mark.parametrize(("name", "step"), [("F16", 2.0**-10), ("BF16", 2.0**-7)])
def test_ties_round_to_even(name, step):
    ties = np.float32([[1 + step / 2, 1 + 3 * step / 2, -1 - step / 2, 1 + step / 2 + 1e-6]])
    expected = [[1, 1 + 2 * step, -1, 1 + step]]
    found = get_format(name)
    np.testing.assert_array_equal(found.dequantize(found.quantize(ties)), expected)


def test_every_float16_round_trips_subnormals_included():
    every = np.arange(2**16, dtype=np.uint16).view(np.uint8).reshape(1, -1)
    weights = get_format("F16").dequantize(every)
    np.testing.assert_array_equal(weights[0], every.view(np.float16)[0].astype(np.float32))
    finite = np.isfinite(weights[0])
    np.testing.assert_array_equal(
        get_format("F16").quantize(weights).view(np.uint16)[0, finite], np.arange(2**16)[finite]
    )


def test_every_bfloat16_round_trips():
    every = np.arange(2**16, dtype=np.uint16).view(np.uint8).reshape(1, -1)
    weights = get_format("BF16").dequantize(every)
    not_nan = ~np.isnan(weights[0])
    np.testing.assert_array_equal(
        get_format("BF16").quantize(weights).view(np.uint16)[0, not_nan], np.arange(2**16)[not_nan]
    )


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_nan_and_infinity_are_preserved(name):
    nan_that_could_round_to_infinity = np.uint32(0x7F800001).view(np.float32)
    weights = np.array([[np.nan, -np.nan, nan_that_could_round_to_infinity, np.inf, -np.inf]], np.float32)
    found = get_format(name)
    np.testing.assert_array_equal(found.dequantize(found.quantize(weights)), weights)
    blocks = found.dequantize_blocks(found.quantize_blocks(weights.reshape(-1, 1)))
    np.testing.assert_array_equal(blocks.reshape(1, -1), weights)


def test_values_beyond_the_largest_float16_become_infinite():
    limit = np.float32([[65504, 65519, 65520, -70000]])
    np.testing.assert_array_equal(
        get_format("F16").dequantize(get_format("F16").quantize(limit)), [[65504, 65504, np.inf, -np.inf]]
    )


def test_a_result_never_shares_memory_with_its_source():
    weights = np.ones((2, 4), np.float32)
    packed = get_format("F32").quantize(weights)
    unpacked = get_format("F32").dequantize(packed)
    assert not np.shares_memory(packed, weights)
    assert not np.shares_memory(unpacked, packed)


def test_the_classes_are_the_registered_formats():
    for cls in (F32, F16, BF16):
        assert isinstance(get_format(cls.__name__), cls)
