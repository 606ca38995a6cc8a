"""The placement with the fewest seconds per token: compared with an exhaustive search of all that llama.cpp can run."""

import itertools
import random

import pytest
from msgspec.structs import replace

from sprat.devices.plan.context_settings import ContextSettings
from sprat.devices.plan.placement import (
    LayerPieces,
    PieceCost,
    Placement,
    PlacementProblem,
    best_placement,
    choose_settings,
    price,
    whole_on_card,
)

MIB = 1 << 20


def piece(rng, largest):
    """A part of some MiB; the card is usually faster, sometimes slower."""
    size, speed_up = rng.randint(1, largest), rng.choice([0.8, 3, 10])
    return PieceCost(n_bytes=size * MIB, memory_s=size / 10, card_s=size / 10 / speed_up)


def problem(seed):
    rng = random.Random(seed)
    layers = [LayerPieces(piece(rng, 4), piece(rng, 20) if rng.random() < 0.7 else None) for _ in range(6)]
    return PlacementProblem(
        layers=tuple(layers),
        head=piece(rng, 6),
        card_bytes=rng.randint(0, 70) * MIB,
        memory_bytes=rng.randint(20, 100) * MIB,
        buffer_bytes=rng.randint(0, 3) * MIB,
        copy_bytes=rng.randint(0, 3) * MIB,
        hand_over_s=rng.choice([0, 0.01, 0.5]),
        logits_s=rng.choice([0, 0.02]),
    )


def every_placement(of):
    n_layers = len(of.layers)
    yield Placement(n_layers=n_layers)
    for count in range(n_layers + 1):
        movable = [i for i in range(n_layers - count, n_layers) if of.layers[i].experts]
        for n_stay in range(len(movable) + 1):
            for stay in itertools.combinations(movable, n_stay):
                yield Placement(n_layers=n_layers, layers=count, head=True, experts_in_memory=stay)


@pytest.mark.parametrize("seed", range(200))
def test_no_placement_that_fits_is_faster(seed):
    found = problem(seed)
    fitting = [placed for each in every_placement(found) if (placed := price(found, each)).fits]
    best = best_placement(found)
    if not fitting:
        assert best is None
        return
    assert best.fits
    assert best.token_s == pytest.approx(min(placed.token_s for placed in fitting))
    assert price(found, best.placement) == best


def test_the_cases_of_the_search_differ():
    kinds = {best and (best.placement.layers, len(best.placement.experts_in_memory) > 0) for best in
             (best_placement(problem(seed)) for seed in range(200))}  # fmt: skip
    assert None in kinds
    assert len(kinds) > 6


def test_whole_on_card_says_whether_it_fits():
    found = problem(1)
    placed = whole_on_card(found)
    assert placed.memory_bytes == 0
    assert placed.card_bytes == found.total_bytes + found.buffer_bytes
    assert placed.fits == (placed.card_bytes <= found.card_bytes)


def test_a_placement_reads_as_one_line():
    assert Placement(n_layers=4).text() == "nothing on the card"
    partial = Placement(n_layers=4, layers=3, head=True, experts_in_memory=(2, 3))
    assert partial.text() == "3 of 4 layers and the head on the card, experts of 2 layers in memory"


@pytest.mark.parametrize("seed", range(40))
def test_settings_are_the_first_that_are_not_much_slower_than_the_best(seed):
    first = problem(seed)
    tight = [replace(first, buffer_bytes=(8 - 2 * n) * MIB, settings=ContextSettings(batch=512 >> n)) for n in range(4)]
    fitting = [placed for each in tight if (placed := best_placement(each)) is not None]
    found = choose_settings(tight, best_placement)
    if not fitting:
        assert found is None
        return
    fastest = min(placed.token_s for placed in fitting)
    assert found in fitting
    assert found.token_s <= 1.1 * fastest + 1e-12
