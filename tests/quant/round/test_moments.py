import numpy as np
import pytest

from sprat.errors import InputError
from sprat.quant.round.moments import InputMoments, shrunk


def test_moments_are_the_mean_of_outer_products():
    x = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    moments = InputMoments(8)
    moments.add(x[:20])
    moments.add(x[20:])
    assert np.allclose(moments.mean(), x.T @ x / 50, atol=1e-5)
    assert np.allclose(moments.mean_square(), np.square(x).mean(axis=0), atol=1e-5)
    assert moments.n_tokens == 50


def test_weights_count_inputs():
    x = np.eye(3, dtype=np.float32)
    moments = InputMoments(3)
    moments.add(x, np.array([1, 3, 0], np.float32))
    assert np.allclose(moments.mean(), np.diag([0.25, 0.75, 0]))
    assert (moments.weight, moments.n_tokens) == (4, 3)


def test_without_inputs_all_count_alike():
    assert np.array_equal(InputMoments(4).mean(), np.eye(4))
    assert np.array_equal(InputMoments(4).mean_square(), np.ones(4))


def test_inputs_of_another_width_and_infinite_ones_are_refused():
    with pytest.raises(InputError, match="inputs of 5 elements, expected 4"):
        InputMoments(4).add(np.zeros((2, 5), np.float32))
    with pytest.raises(InputError, match="not finite"):
        InputMoments(2).add(np.array([[np.inf, 1]], np.float32))


def test_an_expert_with_few_tokens_is_close_to_its_layer():
    own, layer = np.eye(2, dtype=np.float32), np.full((2, 2), 2, np.float32)
    assert np.array_equal(shrunk(own, 0, layer, 256), layer)
    assert np.allclose(shrunk(own, 256, layer, 256), (own + layer) / 2)


def test_half_of_the_matrix_is_kept_in_panels():
    x = np.random.default_rng(1).standard_normal((700, 600)).astype(np.float32)
    first, second = InputMoments(600), InputMoments(600)
    first.add(x[:300])
    second.add(x[300:])
    first.add_all(second)
    assert np.allclose(first.mean(), x.T @ x / 700, atol=1e-5)
    assert np.array_equal(first.mean(), first.mean().T)
    assert np.array_equal(first.mean_square(), np.diagonal(first.mean()))
    assert first.n_tokens == 700
    assert sum(panel.nbytes for panel in first._panels) < 0.75 * 4 * 600 * 600
