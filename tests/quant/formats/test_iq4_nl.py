"""IQ4_NL: literal bytes, and scales of both signs."""

import numpy as np

from sprat.quant.formats import get_format, iq4_nl

LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
COUNT = "00112233445566778899aabbccddeeff"


def test_the_levels_are_exact():
    block = np.array([LEVELS * 2], np.float32) / 4
    packed = get_format("IQ4_NL").quantize(block)
    assert packed.tobytes().hex() == "0034" + COUNT
    np.testing.assert_array_equal(get_format("IQ4_NL").dequantize(packed), block)


def test_negated_levels_use_a_negative_scale():
    block = np.array([LEVELS * 2], np.float32) / -4
    packed = get_format("IQ4_NL").quantize(block)
    assert packed.tobytes().hex() == "00b4" + COUNT
    np.testing.assert_array_equal(get_format("IQ4_NL").dequantize(packed), block)


def test_ties_between_levels_take_the_lower():
    scaled = np.float32([-500, -115.5, -115.49, 45.5, 45.51, 113, 500])
    assert [LEVELS[code] for code in iq4_nl.nearest_codes(scaled)] == [-127, -127, -104, 38, 53, 113, 113]


def test_zeros_stay_zero():
    packed = get_format("IQ4_NL").quantize(np.zeros((3, 64), np.float32))
    np.testing.assert_array_equal(get_format("IQ4_NL").dequantize(packed), np.zeros((3, 64)))
