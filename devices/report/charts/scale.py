"""Scales from values to pixels, and their ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Scale", "linear", "logarithmic", "shared_ends", "spread_out", "thin_out"]

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)  # distances of ticks, times a power of ten
_FEW_DECADES = 2
_COMPARABLE = 20.0  # bars of panels whose ends differ by more have different scales, or the shorter would be invisible
_NEIGHBORS = 10.0  # also where the next larger end differs by more: that panel is no near competitor


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps ``low`` to ``high`` to the pixels ``start`` to ``stop``, linear after ``transform``."""

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[float, ...]
    transform: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        """The pixel of ``value``."""
        low, high = self.transform(self.low), self.transform(self.high)
        return self.start + (self.transform(value) - low) / (high - low) * (self.stop - self.start)


def linear(low: float, high: float, start: float, stop: float, *, n_ticks: int = 5) -> Scale:
    """A linear scale that contains ``low`` and ``high`` and begins and ends at round values."""
    step = _round_step((high - low) / n_ticks if high > low else max(abs(high), 1.0) / n_ticks)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    ticks = tuple(step * index for index in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], start, stop, ticks)


def shared_ends(highs: Sequence[float]) -> list[float]:
    """The end of the scale of each panel: the same for panels whose own ends are comparable.

    Args:
        highs: the largest value of each panel; 0 for an empty one.

    Example:
        >>> shared_ends([31.0, 66.0, 7000.0])
        [66.0, 66.0, 7000.0]
    """
    ends: dict[float, float] = {}
    end = before = math.inf
    for high in sorted(set(highs), reverse=True):
        if end is math.inf or 0 < high < max(end / _COMPARABLE, before / _NEIGHBORS):
            end = high
        ends[high], before = end, high
    return [ends[high] for high in highs]


def logarithmic(low: float, high: float, start: float, stop: float) -> Scale:
    """A logarithmic scale between round values (1, 2, 5 per decade; only 1 if there are many decades)."""
    decades = range(
        math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2
    )  # one more on each side, against rounding
    rounds = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    below = max(value for value in rounds if value <= low)
    above = min(value for value in rounds if value >= high and value > below)
    inside = [value for value in rounds if below <= value <= above]
    tens = [value for value in inside if value in {10.0**decade for decade in decades}]
    return Scale(below, above, start, stop, tuple(tens if len(tens) > _FEW_DECADES else inside), math.log10)


def thin_out(values: Iterable[float], scale: Callable[[float], float], gap: float) -> list[float]:
    """``values`` in order, without those closer than ``gap`` pixels to the one before."""
    kept: list[float] = []
    for value in sorted(set(values)):
        if not kept or abs(scale(value) - scale(kept[-1])) >= gap:
            kept.append(value)
    return kept


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions close to ``wanted``, in the same order, at least ``gap`` apart."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = dict.fromkeys(order, 0.0)
    edge = low
    for index in order:  # push down
        placed[index] = max(wanted[index], edge)
        edge = placed[index] + gap
    edge = high
    for index in reversed(order):  # and back up from the lower edge
        placed[index] = min(placed[index], edge)
        edge = placed[index] - gap
    return [placed[index] for index in range(len(wanted))]


def _round_step(step: float) -> float:
    decade = 10.0 ** math.floor(math.log10(step))
    return next(decade * digit for digit in _STEPS if decade * digit >= step * (1 - 1e-9))
