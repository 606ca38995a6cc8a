"""Placement of the parts of a model, on a GPU or in memory, for the fewest seconds per token.

A placement is what llama.cpp can run: the output head and the last layers on the card, each with its KV cache, and of
these layers the routed experts either on the card or in memory. The experts of a layer are one tensor, so they move as
a whole: a hot expert cannot be on the card alone, and as every token uses equally many of each layer, popularity does
not change a layer's bytes per token.

Times add up, so the best choice is a knapsack: every number of layers is tried, and for each the experts are chosen by
dynamic programming over their bytes, in MiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from sprat.devices.plan.context_settings import ContextSettings

__all__ = [
    "LayerPieces",
    "PieceCost",
    "PlacedModel",
    "Placement",
    "PlacementProblem",
    "best_placement",
    "choose_settings",
    "price",
    "whole_on_card",
]

_MIB = 1 << 20
_GAIN = 1.1  # times faster must a token be for a smaller cache or shorter passes
_Choices = dict[int, tuple[float, frozenset[int]]]  # MiB of experts on the card -> seconds, layers that they are of


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of a model on the GPU; everything else is in memory and computed by the CPU.

    Attributes:
        n_layers: layers of the model.
        layers: how many of them, from the last one on, are on the card with their KV cache.
        head: whether the output head is on the card; with ``layers`` it must be.
        experts_in_memory: layers on the card whose routed experts stay in memory.
    """

    n_layers: int
    layers: int = 0
    head: bool = False
    experts_in_memory: tuple[int, ...] = ()

    @property
    def is_off(self) -> bool:
        """Whether nothing is on the card."""
        return not self.layers and not self.head

    def text(self) -> str:
        """The placement in one line of text.

        Example:
            >>> Placement(n_layers=27, layers=27, head=True, experts_in_memory=(1, 2)).text()
            '27 of 27 layers and the head on the card, experts of 2 layers in memory'
        """
        if self.is_off:
            return "nothing on the card"
        experts = f", experts of {len(self.experts_in_memory)} layers in memory" if self.experts_in_memory else ""
        return f"{self.layers} of {self.n_layers} layers and the head on the card{experts}"


class PieceCost(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of a part of a model (weights and KV entries), and seconds per token in memory and on the card."""

    n_bytes: int
    memory_s: float
    card_s: float


class LayerPieces(msgspec.Struct, frozen=True):
    """A layer's dense part, with attention, shared experts and KV cache; and its routed experts, if it has some."""

    dense: PieceCost
    experts: PieceCost | None = None


class PlacementProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of the search for a placement.

    Attributes:
        layers: first to last.
        head: the output head.
        card_bytes: memory of the card for weights, KV cache and buffers.
        memory_bytes: memory of the CPU for weights and KV cache.
        buffer_bytes: activations on the card.
        copy_bytes: room on the card for the weights in memory that a long prompt copies there.
        hand_over_s: seconds to hand the hidden state from card to CPU, or back.
        logits_s: seconds to hand the logits to the CPU.
        settings: of the context, which cache and buffers follow from.
    """

    layers: tuple[LayerPieces, ...]
    head: PieceCost
    card_bytes: int
    memory_bytes: int
    buffer_bytes: int = 0
    copy_bytes: int = 0
    hand_over_s: float = 0.0
    logits_s: float = 0.0
    settings: ContextSettings = msgspec.field(default_factory=ContextSettings)

    @property
    def total_bytes(self) -> int:
        """Weights and KV cache of all layers and of the head."""
        return self.head.n_bytes + sum(piece.n_bytes for layer in self.layers for piece in _pieces(layer))


class PlacedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A placement, what it takes, and the seconds of a token.

    Attributes:
        placement: what is on the card.
        card_bytes: there, buffers included.
        memory_bytes: weights and KV cache in memory; those that no placement moves, such as embeddings, not counted.
        token_s: of one token.
        fits: whether card and memory hold it.
        settings: of the context.
    """

    placement: Placement
    card_bytes: int
    memory_bytes: int
    token_s: float
    fits: bool
    settings: ContextSettings = msgspec.field(default_factory=ContextSettings)


def best_placement(problem: PlacementProblem) -> PlacedModel | None:
    """The placement with the fewest seconds per token, of those that fit; ``None`` if none fits.

    Sizes of experts count in whole MiB, rounded up.
    """
    fastest_first = sorted(_candidates(problem), key=lambda found: found[0])
    placed = (price(problem, placement) for _, placement in fastest_first)
    return next((found for found in placed if found.fits), None)


def choose_settings(
    problems: Iterable[PlacementProblem], place: Callable[[PlacementProblem], PlacedModel | None]
) -> PlacedModel | None:
    """The placement with the first settings that fit, or with later ones where a token is much faster.

    Args:
        problems: one for each settings, the best first.
        place: the placement for one of them; ``None`` if nothing fits.
    """
    chosen: PlacedModel | None = None
    for problem in problems:
        placed = place(problem)
        if placed is not None and placed.fits and (chosen is None or _GAIN * placed.token_s < chosen.token_s):
            chosen = placed
        if chosen is not None and not chosen.memory_bytes:
            break  # all is on the card: no settings move more
    return chosen


def whole_on_card(problem: PlacementProblem) -> PlacedModel:
    """Everything on the card, whether or not it fits."""
    n_layers = len(problem.layers)
    return price(problem, Placement(n_layers=n_layers, layers=n_layers, head=True))


def price(problem: PlacementProblem, placement: Placement) -> PlacedModel:
    """Bytes and seconds of one placement."""
    first, kept = placement.n_layers - placement.layers, placement.experts_in_memory
    costs = [_layer(problem, index, index >= first, index not in kept) for index in range(placement.n_layers)]
    on_card, token_s = sum(cost[0] for cost in costs), sum(cost[1] for cost in costs)
    if placement.head:
        on_card += problem.head.n_bytes
        token_s += problem.head.card_s + problem.hand_over_s + problem.logits_s
    else:
        token_s += problem.head.memory_s
    in_memory = problem.total_bytes - on_card
    card_bytes = on_card
    if not placement.is_off:
        card_bytes += problem.buffer_bytes + (problem.copy_bytes if in_memory else 0)
    return PlacedModel(
        placement=placement,
        card_bytes=card_bytes,
        memory_bytes=in_memory,
        token_s=token_s,
        fits=card_bytes <= problem.card_bytes and in_memory <= problem.memory_bytes,
        settings=problem.settings,
    )


def _pieces(layer: LayerPieces) -> tuple[PieceCost, ...]:
    return (layer.dense, layer.experts) if layer.experts else (layer.dense,)


def _layer(problem: PlacementProblem, index: int, dense: bool, experts: bool) -> tuple[int, float]:
    """Bytes on the card and seconds of a layer, its dense part on the card or not, and then its experts or not."""
    layer = problem.layers[index]
    if not dense:
        return 0, sum(piece.memory_s for piece in _pieces(layer))
    if layer.experts is None:
        return layer.dense.n_bytes, layer.dense.card_s
    if experts:
        return layer.dense.n_bytes + layer.experts.n_bytes, layer.dense.card_s + layer.experts.card_s
    return layer.dense.n_bytes, layer.dense.card_s + layer.experts.memory_s + 2 * problem.hand_over_s


def _candidates(problem: PlacementProblem) -> Iterator[tuple[float, Placement]]:
    """Seconds and placement: for every number of layers on the card, the fastest experts for each sum of sizes."""
    n_layers = len(problem.layers)
    off = Placement(n_layers=n_layers)
    yield price(problem, off).token_s, off
    base_s = price(problem, msgspec.structs.replace(off, head=True)).token_s  # without what is in ``choices``
    choices: _Choices = {0: (0.0, frozenset())}
    movable: set[int] = set()
    for count in range(n_layers + 1):
        if count:
            index = n_layers - count
            layer = problem.layers[index]
            base_s += layer.dense.card_s - sum(piece.memory_s for piece in _pieces(layer))
            if layer.experts is not None:
                movable.add(index)
                choices = _with_layer(problem, choices, index, layer.experts)
        for seconds, on_card in choices.values():
            stays = tuple(sorted(movable - on_card))
            yield base_s + seconds, Placement(n_layers=n_layers, layers=count, head=True, experts_in_memory=stays)


def _with_layer(problem: PlacementProblem, choices: _Choices, index: int, experts: PieceCost) -> _Choices:
    """The choices with one more layer, whose experts are in memory or on the card; per sum of sizes the fastest."""
    most_mib = problem.card_bytes // _MIB + len(problem.layers)  # what rounding adds
    found: _Choices = {}
    for mib, (seconds, on_card) in choices.items():
        stay = (mib, seconds + experts.memory_s + 2 * problem.hand_over_s, on_card)
        move = (mib - -experts.n_bytes // _MIB, seconds + experts.card_s, on_card | {index})
        for total, token_s, chosen in (stay, move):
            if total <= most_mib and (total not in found or token_s < found[total][0]):
                found[total] = (token_s, chosen)
    return found
