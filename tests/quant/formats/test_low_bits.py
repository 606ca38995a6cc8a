"""IQ4_XS, Q3_K, Q2_K, Q2_0, MXFP4, NVFP4: literal bytes, and blocks on a grid of the format are exact."""

import numpy as np
import pytest

from sprat.quant.formats import get_format, iq4_nl

FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
FP4_CODES = [0, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 12, 13, 14, 15]
# Signed 6-bit scales, the smallest included: it decides the superblock's own scale.
SCALES = np.array([-32, 31, 16, 3, -20, 27, 9, 11, 1, -5, 30, 25, -16, 20, 8, 13])


def test_q2_0_has_four_codes_to_a_byte_the_first_lowest():
    weights = np.array([[-1, 0, 1, 2] * 16], np.float32) / 4
    assert get_format("Q2_0").quantize(weights).tobytes().hex() == "0034" + "e4" * 16


def test_q2_0_uses_a_scale_of_either_sign():
    weights = np.array([[-1, 0, 1, 2] * 16], np.float32) / -4
    assert get_format("Q2_0").quantize(weights).tobytes().hex() == "00b4" + "e4" * 16


def test_mxfp4_has_an_exponent_and_the_codes_of_e2m1():
    packed = get_format("MXFP4").quantize(np.tile(FP4, 2)[None] / 8)
    assert packed.tobytes() == bytes([125, *(code * 17 for code in FP4_CODES)])


def test_nvfp4_has_four_scales_of_sixteen_weights():
    weights = (FP4 * np.float32([[1 / 8], [1 / 4], [7 / 32], [13]])).reshape(1, 64)
    packed = get_format("NVFP4").quantize(weights)
    assert packed[0, :4].tolist() == [0x28, 0x30, 0x2E, 0x5D]  # UE4M3 of 1/4, 1/2, 7/16 and 26
    codes = [low | high << 4 for low, high in zip(FP4_CODES[:8], FP4_CODES[8:], strict=True)]
    assert packed[0, 4:].tolist() == codes * 4
    np.testing.assert_array_equal(get_format("NVFP4").dequantize(packed), weights)


@pytest.mark.parametrize("name", ["MXFP4", "NVFP4", "Q2_0", "Q3_K", "IQ4_XS", "Q2_K"])
def test_zeros_stay_zero(name):
    packed = get_format(name).quantize(np.zeros((3, 512), np.float32))
    np.testing.assert_array_equal(get_format(name).dequantize(packed), np.zeros((3, 512)))


def test_q3_k_represents_a_superblock_on_its_grid_exactly():
    codes = np.array([-4, 3, 0, 1, -1, 2, -2, -3] * 2)
    weights = (SCALES[:, None] * codes / 16).astype(np.float32).reshape(1, 256)
    packed = get_format("Q3_K").quantize(weights)
    assert packed[0, 108:].tobytes() == bytes.fromhex("002c")
    stored = SCALES + 32
    low = [int(stored[i] & 15 | (stored[i + 8] & 15) << 4) for i in range(8)]
    assert packed[0, 96:104].tolist() == low
    assert packed[0, 104] == sum(int(stored[4 * i] >> 4) << 2 * i for i in range(4))
    np.testing.assert_array_equal(get_format("Q3_K").dequantize(packed), weights)


def test_iq4_xs_represents_a_superblock_on_its_grid_exactly():
    levels = np.tile(iq4_nl.LEVELS, 2)
    scales = SCALES[:8]
    weights = (scales[:, None] * levels / 64).astype(np.float32).reshape(1, 256)
    packed = get_format("IQ4_XS").quantize(weights)
    assert packed[0, :2].tobytes() == bytes.fromhex("0024")
    stored = scales + 32
    assert packed[0, 2:4].tobytes() == sum(int(s >> 4) << 2 * b for b, s in enumerate(stored)).to_bytes(2, "little")
    assert packed[0, 4:8].tolist() == [int(stored[2 * i] & 15 | (stored[2 * i + 1] & 15) << 4) for i in range(4)]
    assert packed[0, 8:].tolist() == [code * 17 for code in range(16)] * 8
    np.testing.assert_array_equal(get_format("IQ4_XS").dequantize(packed), weights)


def test_q2_k_represents_a_superblock_on_its_grid_exactly():
    sc = np.array([15, 1, 7, 3, 10, 5, 12, 2, 9, 4, 14, 6, 8, 11, 13, 15])
    m = np.array([2, 15, 0, 3, 8, 6, 9, 10, 1, 4, 12, 7, 5, 14, 13, 11])
    weights = (sc[:, None] * (np.arange(16) % 4) / 8 - m[:, None] / 4).astype(np.float32).reshape(1, 256)
    packed = get_format("Q2_K").quantize(weights)
    assert packed[0, :16].tolist() == (sc | m << 4).tolist()
    assert packed[0, 16:80].tolist() == [code * 0b01010101 for code in range(4)] * 16
    assert packed[0, 80:].tobytes() == bytes.fromhex("0030 0034")
    np.testing.assert_array_equal(get_format("Q2_K").dequantize(packed), weights)
