"""How many drafts are checked follows from measured seconds and from how many were right."""

import numpy as np
import pytest

from sprat.runtime.generate.speculate.drafter import Kind
from sprat.runtime.generate.speculate.pace import Pace

KIND = Kind("lookup", 3)


def simulate(cost, probability, n_tokens=3000, seed=1, max_drafts=4, noise=lambda rng: rng.uniform(0.9, 1.1)):
    """Decode with drafts that are right with a probability, passes of ``cost(n)`` seconds; tokens per second."""
    rng, pace, seconds, tokens = np.random.default_rng(seed), Pace(max_drafts), 0.0, 0
    while tokens < n_tokens:
        n = pace.n_drafts(KIND, 8)
        took = cost(n + 1) * noise(rng)
        pace.add_pass("lookup" if n else "", n + 1, took)
        wrong = np.flatnonzero(rng.random(n) >= probability)
        right = int(wrong[0]) if wrong.size else n
        if n:
            pace.add_drafts(KIND, right, n)
        seconds, tokens = seconds + took, tokens + 1 + right
    return tokens / seconds


def memory_bound(n):
    return 1 + 0.1 * (n - 1)


def small_moe(n):
    """As the packaged student's passes."""
    return (1.0, 1.4, 2.0, 2.5, 3.3)[n - 1]


def compute_bound(n):
    return float(n)


@pytest.mark.parametrize(("cost", "probability", "at_least"), [
    (memory_bound, 0.95, 3.0),
    (memory_bound, 0.7, 1.8),
    (memory_bound, 0.02, 0.97),
    (compute_bound, 0.95, 0.97),
    (compute_bound, 0.0, 0.97),
    (lambda n: 1 + 3.0 * (n > 1), 0.5, 0.97),
])  # fmt: skip
def test_drafts_are_checked_where_they_pay_and_left_out_where_they_do_not(cost, probability, at_least):
    assert simulate(cost, probability) >= at_least


@pytest.mark.parametrize("probability", [0.0, 0.98])
def test_drafts_pay_on_a_busy_machine_and_lose_little(probability):
    """Passes take twice their time on average, some of them five times."""
    noise = {"noise": lambda rng: 1 + rng.exponential(1.0)}
    plain = np.mean([simulate(small_moe, 0.0, seed=seed, max_drafts=0, **noise) for seed in range(8)])
    found = np.mean([simulate(small_moe, probability, seed=seed, **noise) for seed in range(8)])
    assert found >= plain * (1.25 if probability else 0.97)


def test_slow_first_passes_do_not_end_drafts():
    """Another program ran meanwhile; nothing tells so but later passes."""
    pace, drafted = Pace(4), 0
    for i in range(600):
        n = pace.n_drafts(KIND, 4)
        pace.add_pass("lookup" if n else "", n + 1, small_moe(n + 1) * (3 if n and i < 20 else 1))
        if n:
            pace.add_drafts(KIND, n, n)
            drafted += i >= 20
    assert drafted > 300


def test_the_length_follows_the_probability():
    def length(probability):
        pace = Pace(8)
        pace.add_pass("", 1, 1.0)
        for n in range(2, 10):
            pace.add_pass("lookup", n, 1 + 0.2 * (n - 1))
        for _ in range(200):
            pace.add_drafts(KIND, *((1, 1) if _ % 100 < 100 * probability else (0, 1)))
        pace._credit = 1.0
        return pace.n_drafts(KIND, 8)

    lengths = [length(probability) for probability in (0.05, 0.5, 0.8, 0.99)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (0, 8)


def test_no_more_drafts_than_there_are():
    pace = Pace(4, always=True)
    assert [pace.n_drafts(KIND, available) for available in (-1, 0, 2, 9)] == [0, 0, 2, 4]


def test_nothing_is_drafted_before_a_pass_was_measured():
    assert Pace(4).n_drafts(KIND, 4) == 0


def test_drafts_are_looked_for_at_every_pass_only_while_there_are_some():
    pace = Pace(4)
    looks = [pace.looks() for _ in range(64)]
    assert all(looks[:8])
    assert sum(looks) == 8 + (64 - 8) // 8
    pace.add_pass("", 1, 1.0)
    assert not pace.looks()
    pace.add_pass("lookup", 3, 1.5)
    assert all(pace.looks() for _ in range(8))


def test_one_slow_pass_changes_little():
    pace = Pace(4)
    for seconds in (1.0, 1.0, 1000.0):
        pace.add_pass("", 1, seconds)
    assert pace._plain < 1.5
