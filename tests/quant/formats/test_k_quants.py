"""Q4_K, Q5_K, Q6_K: superblocks on a grid of the format are exact; literal bytes of their fields."""

import numpy as np
import pytest

from sprat.quant.formats import get_format

SC = np.array([63, 1, 17, 33, 40, 5, 60, 22])
M = np.array([2, 63, 0, 31, 48, 16, 9, 50])
# sc and m as in _SuperBlocks.header; the upper two bits of the last four are in the bytes of the first four
HEADER = bytes(
    [
        *(int(SC[j] | SC[j + 4] >> 4 << 6) for j in range(4)),
        *(int(M[j] | M[j + 4] >> 4 << 6) for j in range(4)),
        *(int(SC[j + 4] & 15 | (M[j + 4] & 15) << 4) for j in range(4)),
    ]
)


def test_the_expected_header_has_the_literal_bytes():
    assert HEADER.hex() == "bf01d161" + "c27f00df" + "0805 9c26".replace(" ", "")


def on_the_grid(largest: int) -> np.ndarray:
    """One superblock with d = 1/8, dmin = 1/4; every sub-block has all codes, both ends of its range included."""
    codes = np.arange(32) % (largest + 1)
    return (SC[:, None] * codes / 8 - M[:, None] / 4).astype(np.float32).reshape(1, 256)


def test_q4_k_represents_a_superblock_on_its_grid_exactly():
    weights = on_the_grid(15)
    packed = get_format("Q4_K").quantize(weights)
    nibbles = bytes(j % 16 * 17 for j in range(32)) * 4
    assert packed.tobytes() == bytes.fromhex("0030 0034") + HEADER + nibbles
    np.testing.assert_array_equal(get_format("Q4_K").dequantize(packed), weights)


def test_q5_k_represents_a_superblock_on_its_grid_exactly():
    weights = on_the_grid(31)
    packed = get_format("Q5_K").quantize(weights)
    fifth = bytes(16) + b"\xff" * 16
    nibbles = bytes(j % 16 * 17 for j in range(32)) * 4
    assert packed.tobytes() == bytes.fromhex("0030 0034") + HEADER + fifth + nibbles
    np.testing.assert_array_equal(get_format("Q5_K").dequantize(packed), weights)


def test_q6_k_represents_a_superblock_on_its_grid_exactly():
    scales = np.array([-128, 100, 64, 3, -90, 127, 33, 77, 1, -5, 50, 111, -64, 20, 8, 99])
    codes = np.array([-32, 31, 0, 1, -1, 15, 16, -16, -17, 7, 30, -31, 9, -20, 3, 25])
    weights = (scales[:, None] * codes / 16).astype(np.float32).reshape(1, 256)
    packed = get_format("Q6_K").quantize(weights)
    assert packed[0, 192:208].view(np.int8).tolist() == scales.tolist()
    assert packed[0, 208:].tobytes() == bytes.fromhex("002c")
    upper = (codes + 32) >> 4
    assert packed[0, 128:144].tolist() == (upper * 0b01010101).tolist()
    lower = (codes + 32) & 15
    assert packed[0, :16].tolist() == (lower * 17).tolist()
    np.testing.assert_array_equal(get_format("Q6_K").dequantize(packed), weights)


@pytest.mark.parametrize("name", ["Q4_K", "Q5_K"])
@pytest.mark.parametrize("value", [0.0, 2.0, -2.0])
def test_a_constant_superblock_is_exact(name, value):
    weights = np.full((1, 256), value, np.float32)
    np.testing.assert_allclose(get_format(name).dequantize(get_format(name).quantize(weights)), weights, rtol=2e-3)


@pytest.mark.parametrize("name", ["IQ4_NL", "Q4_K", "Q5_K", "Q6_K"])
def test_nan_becomes_zero_and_infinity_the_largest_value(name):
    weights = np.zeros((1, 256), np.float32)
    weights[0, :4] = [np.nan, np.inf, -np.inf, np.nan]
    found = get_format(name)
    unpacked = found.dequantize(found.quantize(weights))
    assert np.isfinite(unpacked).all()
    assert unpacked[0, 1] > 1e6
    assert unpacked[0, 2] < -1e6
