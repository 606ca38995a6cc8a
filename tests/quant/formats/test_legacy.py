"""Q8_0, Q4_0, Q4_1, Q5_0, Q5_1: exact blocks, literal bytes, and ggml's bytes."""

import gguf
import numpy as np
import pytest
from weights import hard_weights

from sprat.quant.formats import get_format

NAMES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
COUNT = "00112233445566778899aabbccddeeff"  # code j in both halves of byte j


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("Q4_0", [*range(-8, 8), *range(-8, 8)], "003c" + COUNT),
        ("Q4_1", [*range(16), *range(16)], "003c 0000" + COUNT),
        ("Q4_1", [w / 2 - 3 for w in [*range(16), *range(16)]], "0038 00c2" + COUNT),
        ("Q5_0", range(-16, 16), "003c 0000ffff" + COUNT),
        ("Q5_1", range(32), "003c 0000 0000ffff" + COUNT),
        ("Q8_0", [127, *range(31)], "003c 7f" + bytes(range(31)).hex()),
    ],
)
def test_a_block_on_the_grid_is_exact(name, weights, expected):
    found, block = get_format(name), np.array([weights], np.float32)
    assert found.quantize(block).tobytes().hex() == expected.replace(" ", "")
    np.testing.assert_array_equal(found.dequantize(found.quantize(block)), block)


def test_q4_0_maps_the_largest_magnitude_to_minus_eight_steps_with_its_sign():
    block = np.zeros((1, 32), np.float32)
    block[0, 5] = 4.0
    packed = get_format("Q4_0").quantize(block)
    assert packed[0, :2].view(np.float16)[0] == -0.5
    np.testing.assert_array_equal(get_format("Q4_0").dequantize(packed), block)


@pytest.mark.parametrize(("first", "sign"), [(4.0, -1), (-4.0, 1)])
def test_q4_0_uses_the_sign_of_the_first_of_two_extremes(first, sign):
    block = np.zeros((1, 32), np.float32)
    block[0, 3], block[0, 20] = first, -first
    assert np.sign(get_format("Q4_0").quantize(block)[0, :2].view(np.float16)[0]) == sign


def test_q8_0_rounds_half_away_from_zero():
    block = np.zeros((1, 32), np.float32)
    block[0, :7] = [127, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997]
    assert get_format("Q8_0").quantize(block)[0, 2:9].view(np.int8).tolist() == [127, 1, -1, 2, 3, -3, 0]


def test_codes_use_the_scale_before_rounding_to_float16():
    block = np.zeros((1, 32), np.float32)
    block[0, :2] = [127 * 1.0004, 0.5 * 1.0002]  # 0.4999 steps of the true scale, 0.5001 of the rounded one
    packed = get_format("Q8_0").quantize(block)
    assert packed[0, :2].view(np.float16)[0] == 1
    assert packed[0, 2:4].tolist() == [127, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "few bits", "ties", "positive", "offset"])
def test_bytes_equal_those_of_the_gguf_package(name, kind):
    weights = hard_weights()[kind]
    expected = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[name])
    np.testing.assert_array_equal(get_format(name).quantize(weights), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_beyond_float16_does_not_fail(name):
    packed = get_format(name).quantize(np.full((1, 32), 3e38, np.float32))
    assert packed.shape == (1, get_format(name).block_bytes)
