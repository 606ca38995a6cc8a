"""Rounding for correlated inputs: every step leaves a smaller error of the outputs than the one before."""

import numpy as np
import pytest

from sprat.quant.formats import format_names, get_format
from sprat.quant.round import Effort, grid_of, round_matrix
from sprat.quant.round.descent import descend
from sprat.quant.round.rounding import MatrixRounder, output_error

GRIDS = [name for name in format_names() if grid_of(get_format(name))]


def correlated(k, seed=0):
    """Second moments of inputs that share a few directions, with columns of very different size."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((k, k // 4)) * 2
    inputs = rng.standard_normal((4 * k, k // 4)) @ mixing.T + rng.standard_normal((4 * k, k))
    inputs *= np.exp(rng.standard_normal(k))
    return (inputs.T @ inputs / len(inputs)).astype(np.float32)


def heavy(n, k, seed=1):
    return (np.random.default_rng(seed).standard_t(5, (n, k)) * 0.02).astype(np.float32)


@pytest.mark.parametrize("name", GRIDS)
def test_each_step_pays(name):
    format, moments, weights = get_format(name), correlated(256), heavy(24, 256)
    blind = output_error(weights, format.quantize(weights), moments, format)
    errors = [
        output_error(weights, round_matrix(weights, moments, format, effort), moments, format)
        for effort in (Effort(feedback=False), Effort(passes=0), Effort(passes=2))
    ]
    assert errors[0] < blind
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.95 * errors[1]


@pytest.mark.parametrize("name", GRIDS)
def test_no_pass_of_descent_is_worse(name):
    format, moments, weights = get_format(name), correlated(256, 3), heavy(16, 256, 4)
    packed = format.quantize(weights).reshape(16, -1, format.block_bytes)
    error = output_error(weights, packed.reshape(16, -1), moments, format)
    for _ in range(4):
        packed = descend(packed, weights, moments, format, grid_of(format), passes=1)
        now = output_error(weights, packed.reshape(16, -1), moments, format)
        assert now <= error * (1 + 1e-4)
        error = now


@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "Q4_K", "IQ4_NL"])
def test_inputs_that_are_always_zero_do_no_harm(name):
    format, moments, weights = get_format(name), correlated(256), heavy(8, 256)
    moments[:, 5::7] = moments[5::7] = 0
    packed = round_matrix(weights, moments, format, Effort())
    assert np.isfinite(format.dequantize(packed)).all()
    assert output_error(weights, packed, moments, format) < output_error(
        weights, format.quantize(weights), moments, format
    )


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q6_K", "Q8_0"])
def test_moments_of_nothing_and_weights_of_zero(name):
    format = get_format(name)
    for moments in (np.zeros((256, 256), np.float32), np.eye(256, dtype=np.float32)):
        packed = round_matrix(np.zeros((3, 256), np.float32), moments, format, Effort())
        assert not format.dequantize(packed).any()
        assert np.isfinite(format.dequantize(round_matrix(heavy(3, 256), moments, format, Effort()))).all()


def test_a_format_without_a_grid_uses_its_own_search():
    format, weights = get_format("F16"), heavy(4, 64)
    assert np.array_equal(round_matrix(weights, correlated(64), format, Effort()), format.quantize(weights))


def test_errors_of_correlated_columns_cancel():
    """Two columns with the same input: the second takes back what the first lost."""
    moments = np.eye(32, dtype=np.float32) * 0.001
    moments[:2, :2] = 1
    weights = np.full((1, 32), 0.45, np.float32)
    weights[0, 31] = 8
    format = get_format("Q4_0")
    blind = format.dequantize(format.quantize(weights))[0]
    fed = format.dequantize(round_matrix(weights, moments, format, Effort(passes=0)))[0]
    assert abs(blind[:2].sum() - 0.9) > 0.5
    assert abs(fed[:2].sum() - 0.9) < 0.5


def test_wide_rows_are_fed_back_in_groups_of_columns(monkeypatch):
    """A group of columns is rounded as a matrix of its own."""
    weights, moments, format = heavy(6, 128), correlated(128), get_format("Q4_0")
    monkeypatch.setattr("sprat.quant.round.rounding._FEEDBACK_COLUMNS", 64)
    found = round_matrix(weights, moments, format, Effort(passes=0))
    halves = [
        round_matrix(weights[:, half], moments[half, half], format, Effort(passes=0))
        for half in (slice(0, 64), slice(64, 128))
    ]
    assert np.array_equal(found, np.concatenate(halves, axis=1))
    assert output_error(weights, found, moments, format) < output_error(
        weights, format.quantize(weights), moments, format
    )


def test_rows_may_come_in_parts():
    weights, moments, format = heavy(8, 64), correlated(64), get_format("Q5_0")
    rounder = MatrixRounder(moments, format, Effort())
    parts = [rounder.round(weights[:3]), rounder.round(weights[3:])]
    whole = rounder.round(weights)
    difference = format.dequantize(np.concatenate(parts)) - format.dequantize(whole)
    assert np.count_nonzero(difference) <= difference.size // 100  # products of other shapes round differently
