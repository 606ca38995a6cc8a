"""Importance of weights: what broadcasts, what is refused, and that it moves the error to where it counts less."""

import numpy as np
import pytest
from weights import hard_weights, ordinary_weights

from sprat.errors import FormatError
from sprat.quant.formats import BlockFormat, format_names, get_format
from sprat.quant.formats.shared.importance import RowImportance

SEARCHED = [name for name in format_names() if get_format(name).block_size > 1]
K = 512


@pytest.fixture
def importance() -> np.ndarray:
    return np.exp(np.random.default_rng(2).normal(size=K) * 1.5).astype(np.float32)


def weighted_error(found: BlockFormat, packed: np.ndarray, weights: np.ndarray, importance: np.ndarray) -> float:
    return float(np.mean(importance * (found.dequantize(packed) - weights) ** 2))


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("kind", ["gaussian", "student-t"])
def test_the_weighted_error_is_smaller_with_importance(name, kind, importance):
    found, weights = get_format(name), ordinary_weights()[kind]
    with_it, without = found.quantize(weights, importance), found.quantize(weights)
    assert weighted_error(found, with_it, weights, importance) < 0.99 * weighted_error(
        found, without, weights, importance
    )


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_unit_of_importance_does_not_matter(name, scale, importance):
    found, weights = get_format(name), ordinary_weights()["gaussian"][:5]
    powers = np.exp2(np.round(np.log2(importance)))  # their ratios stay exact
    unit = np.float32(2.0 ** np.round(np.log2(scale)))
    np.testing.assert_array_equal(found.quantize(weights, powers * unit), found.quantize(weights, powers))


@pytest.mark.parametrize("name", SEARCHED)
def test_importance_broadcasts_to_rows_and_experts(name, importance):
    found, weights = get_format(name), np.random.default_rng(4).standard_normal((3, 2, K), np.float32)
    of_columns = found.quantize(weights, importance)
    np.testing.assert_array_equal(of_columns, found.quantize(weights, np.broadcast_to(importance, weights.shape)))
    of_experts = np.stack([importance, importance[::-1], np.ones(K, np.float32)])[:, None]
    packed = found.quantize(weights, of_experts)
    for expert in range(3):
        np.testing.assert_array_equal(packed[expert], found.quantize(weights[expert], of_experts[expert, 0]))


@pytest.mark.parametrize("name", SEARCHED)
def test_columns_without_importance_count_evenly(name, importance):
    """A block that no calibration token used is quantized as well as one whose columns count alike."""
    found, weights = get_format(name), ordinary_weights()["gaussian"][:9]
    none = np.zeros(K, np.float32)
    np.testing.assert_array_equal(found.quantize(weights, none), found.quantize(weights, none + 3))
    importance[:256] = 0
    packed = found.quantize(weights, importance)
    np.testing.assert_array_equal(packed[:, : found.row_bytes(256)], found.quantize(weights[:, :256], none[:256]))


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("kind", hard_weights())
def test_hard_weights_with_heavy_importance_stay_finite(name, kind):
    found, weights = get_format(name), hard_weights()[kind]
    heavy = np.exp(np.random.default_rng(5).normal(size=weights.shape) * 8).astype(np.float32)
    assert np.isfinite(found.dequantize(found.quantize(weights, heavy))).all()


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_float_formats_round_to_nearest_with_any_importance(name, importance):
    found, weights = get_format(name), ordinary_weights()["gaussian"][:3]
    np.testing.assert_array_equal(found.quantize(weights, importance), found.quantize(weights))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_importance_that_is_no_weight_of_an_error_is_refused(bad, importance):
    importance[7] = bad
    with pytest.raises(FormatError, match=rf"Q4_0: importance holds {bad} at \(7,\); every element must be finite"):
        get_format("Q4_0").quantize(np.zeros((2, K), np.float32), importance)


@pytest.mark.parametrize("shape", [(2,), (3, K), (1, 1, 2, K), (K, 1)])
def test_importance_that_does_not_broadcast_is_refused(shape):
    with pytest.raises(FormatError, match=r"does not broadcast to weights of shape \(2, 512\)"):
        get_format("Q4_K").quantize(np.zeros((2, K), np.float32), np.ones(shape, np.float32))


def test_rows_share_importance_without_a_copy():
    found = RowImportance.of(np.ones((4, 1, K), np.float32), (4, 1000, K), "Q4_0")
    assert found.distinct.shape == (4, K)
    assert found.which.tolist() == [expert for expert in range(4) for _ in range(1000)]
