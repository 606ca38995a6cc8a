"""The recipe's optimizer for matrices: orthogonal steps, and weights that decay."""

import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shape", [(32, 32), (16, 48), (48, 16), (4, 24, 40)])
def test_a_steps_singular_values_are_near_one(shape):
    from muon import orthogonalize

    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)).float())
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_without_a_gradient_a_matrix_loses_rate_times_decay():
    from muon import Muon

    weight = torch.nn.Parameter(torch.full((8, 8), 2.0))
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=0.02, weight_decay=0.5).step()
    assert torch.allclose(weight, torch.full((8, 8), 2.0 * 0.99))
