"""The group formats of ONNX, against ggml's formats."""

import numpy as np
import pytest
from weights import hard_weights, ordinary_weights

from sprat.quant.convert import quantize_from
from sprat.quant.formats import get_format
from sprat.quant.formats.groups import GROUP_SIZES, group_format

# Relative error on Gaussian weights: measured, rounded up.
GAUSSIAN_ERRORS = {
    (4, 32, True): 0.0875,
    (4, 64, True): 0.0925,
    (4, 128, True): 0.1005,
    (4, 32, False): 0.0825,
    (4, 64, False): 0.0925,
    (4, 128, False): 0.1005,
    (8, 32, True): 0.0055,
    (8, 64, True): 0.0060,
    (8, 128, True): 0.0065,
    (8, 32, False): 0.0050,
    (8, 64, False): 0.0055,
    (8, 128, False): 0.0062,
}


@pytest.fixture(params=GAUSSIAN_ERRORS, ids=lambda key: f"INT{key[0]}_G{key[1]}{'' if key[2] else 'A'}")
def key(request):
    return request.param


@pytest.fixture
def found(key):
    bits, size, symmetric = key
    return group_format(bits, size, symmetric=symmetric)


def test_every_combination_has_a_format():
    assert {(4, size, True) for size in GROUP_SIZES} <= set(GAUSSIAN_ERRORS)
    assert len(GAUSSIAN_ERRORS) == 4 * len(GROUP_SIZES)


def test_bits_per_weight_count_scales_and_zero_points(found):
    zero_point_bits = 0 if found.symmetric else 8
    assert found.bits_per_weight == found.bits + (16 + zero_point_bits) / found.block_size


def test_the_error_on_gaussian_weights_is_at_most_the_measured_one(found, key):
    weights = ordinary_weights()["gaussian"]
    error = np.sqrt(np.mean((found.dequantize(found.quantize(weights)) - weights) ** 2) / np.mean(weights**2))
    assert error <= GAUSSIAN_ERRORS[key]


@pytest.mark.parametrize(("bits", "ggml"), [(4, "Q4_0"), (8, "Q8_0")])
@pytest.mark.parametrize("kind", [*ordinary_weights(), *hard_weights()])
def test_symmetric_blocks_of_32_equal_ggmls_format(bits, ggml, kind):
    weights = (ordinary_weights() | hard_weights())[kind]
    found, reference = group_format(bits, 32), get_format(ggml)
    np.testing.assert_array_equal(
        found.dequantize(found.quantize(weights)), reference.dequantize(reference.quantize(weights))
    )


@pytest.mark.parametrize("kind", hard_weights())
def test_hard_weights_stay_finite(found, kind):
    if found.symmetric and found.block_size == 32:
        pytest.skip("as in ggml, a scale may be infinite")
    weights = hard_weights()[kind]
    assert np.isfinite(found.dequantize(found.quantize(weights))).all()


def test_zeros_stay_zeros(found):
    assert not found.dequantize(found.quantize(np.zeros((2, 256), np.float32))).any()


def test_a_zero_point_reduces_the_error_of_weights_of_one_sign():
    weights = np.random.default_rng(0).uniform(-2, -1, (8, 256)).astype(np.float32)
    errors = {}
    for symmetric in (True, False):
        found = group_format(4, 32, symmetric=symmetric)
        errors[symmetric] = np.abs(found.dequantize(found.quantize(weights)) - weights).max()
    assert errors[False] < errors[True]


def test_any_source_format_is_converted(found):
    source = get_format("BF16")
    packed = source.quantize(ordinary_weights()["gaussian"])
    expected = found.quantize(source.dequantize(packed))
    np.testing.assert_array_equal(quantize_from(packed, source, found), expected)
