"""The recipe's optimizer for matrices: orthogonal steps, and weights that decay."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
RECIPE = Path(__file__).parents[2] / "examples" / "train_student"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def muon():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPE)
        import muon
    return muon


@pytest.mark.parametrize("shape", [(32, 32), (16, 48), (48, 16), (4, 24, 40)])
def test_a_steps_singular_values_are_near_one(muon, shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(muon.orthogonalize(torch.randn(shape)).float())
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_without_a_gradient_a_matrix_loses_rate_times_decay(muon):
    weight = torch.nn.Parameter(torch.full((8, 8), 2.0))
    weight.grad = torch.zeros_like(weight)
    muon.Muon([weight], lr=0.02, weight_decay=0.5).step()
    assert torch.allclose(weight, torch.full((8, 8), 2.0 * 0.99))
