"""The knapsack: as good as trying everything, never above the budget."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.errors import InputError
from sprat.quant.allocate import Option, allocate

option = st.builds(Option, st.sampled_from("abc"), st.integers(1, 60), st.floats(0, 100))
tensors = st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=5)


def best_cost(tensors, budget):
    """By trying everything."""
    picks = (pick for pick in itertools.product(*tensors) if sum(o.nbytes for o in pick) <= budget)
    return min((sum(o.cost for o in pick) for pick in picks), default=None)


@given(tensors, st.integers(1, 300))
def test_it_is_optimal(tensors, budget):
    best = best_cost(tensors, budget)
    if best is None:
        with pytest.raises(InputError, match="smallest formats take"):
            allocate(tensors, budget)
        return
    found = allocate(tensors, budget)
    assert all(pick in options for pick, options in zip(found, tensors, strict=True))
    assert sum(o.nbytes for o in found) <= budget
    assert sum(o.cost for o in found) == pytest.approx(best)


def formats(n_weights, cost):
    return [Option(str(bits), n_weights * bits // 16, cost * 4.0 ** (8 - bits / 2)) for bits in (5, 7, 9, 11, 17)]


@pytest.mark.parametrize("share", [0.35, 0.5, 0.75, 0.9])
def test_a_large_model_fills_its_budget(share):
    """Sizes without a common divisor: the table's unit is larger than 1."""
    tensors = [formats(1_000_003 + 977 * i, 1 + (i * 37) % 19) for i in range(200)]
    budget = int(share * sum(options[-1].nbytes for options in tensors))
    used = sum(option.nbytes for option in allocate(tensors, budget))
    assert 0.998 * budget <= used <= budget


def test_bytes_go_where_they_pay():
    cheap, dear = formats(3200, 1.0), formats(3200, 100.0)
    picked = allocate([cheap, dear], cheap[0].nbytes + dear[-1].nbytes)
    assert [option.name for option in picked] == ["5", "17"]


def test_with_all_bytes_every_tensor_has_its_best():
    tensors = [formats(1600, 2.0), formats(800, 1.0)]
    assert [option.name for option in allocate(tensors, 10**9)] == ["17", "17"]


def test_a_refusal_counts_tensors_without_a_choice():
    one = [Option("a", 100, 1.0)]
    assert allocate([one], 150, fixed=50) == one
    with pytest.raises(InputError, match="149 B hold no file of this model: its smallest formats take 150 B"):
        allocate([one], 149, fixed=50)
