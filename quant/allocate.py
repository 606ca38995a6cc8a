"""Allocation: one block format for every tensor, with the least total cost in a budget of bytes.

A multiple-choice knapsack. Bytes are counted in units, and a table over them gives the best choice: exact if the unit
divides all sizes, which it does for a few hundred tensors of a small model. Otherwise sizes are rounded up to
``1 / 65536`` of the slack, and the bytes that rounding leaves over are spent on the best single changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sprat.arrays import F64Array, U8Array
from sprat.errors import InputError
from sprat.text import human_bytes

__all__ = ["Option", "allocate"]

_MAX_UNITS = 1 << 16


@dataclass(frozen=True, slots=True)
class Option:
    """One format of one tensor.

    Attributes:
        name: of the format.
        nbytes: size of the tensor in it.
        cost: what the format costs: a KL divergence, with a share of time where speed counts.
    """

    name: str
    nbytes: int
    cost: float


def allocate(tensors: Sequence[Sequence[Option]], budget: int, fixed: int = 0) -> list[Option]:
    """The option of every tensor with the least total cost.

    Args:
        tensors: the options of each tensor, at least one.
        budget: bytes of all tensors together.
        fixed: share of them that tensors without a choice take.

    Raises:
        InputError: the smallest options exceed the budget.
    """
    tensors = [_useful(options) for options in tensors]
    least = [min(option.nbytes for option in options) for options in tensors]
    slack = budget - fixed - sum(least)
    if slack < 0:
        smallest = human_bytes(fixed + sum(least))
        raise InputError(
            f"{human_bytes(budget)} hold no file of this model: its smallest formats take {smallest}; "
            "give a larger size"
        )
    extra = [[option.nbytes - small for option in options] for options, small in zip(tensors, least, strict=True)]
    unit = max(math.gcd(*(size for sizes in extra for size in sizes)), -(-slack // _MAX_UNITS), 1)
    picks = _table(tensors, [[-(-size // unit) for size in sizes] for sizes in extra], slack // unit)
    return _spend_rest(tensors, [options[pick] for options, pick in zip(tensors, picks, strict=True)], budget - fixed)


def _useful(options: Sequence[Option]) -> list[Option]:
    """The options without those that another beats in bytes and cost, smallest first."""
    useful: list[Option] = []
    for option in sorted(options, key=lambda option: (option.nbytes, option.cost)):
        if not useful or option.cost < useful[-1].cost:
            useful.append(option)
    return useful


def _table(tensors: Sequence[Sequence[Option]], units: Sequence[Sequence[int]], capacity: int) -> list[int]:
    """The best index per tensor, by dynamic programming over used units."""
    best: F64Array = np.zeros(capacity + 1)
    chosen: list[U8Array] = []
    for options, sizes in zip(tensors, units, strict=True):
        new, pick = np.full(capacity + 1, np.inf), np.zeros(capacity + 1, np.uint8)
        for index, (option, size) in enumerate(zip(options, sizes, strict=True)):
            if size > capacity:
                continue
            cost = best[: capacity + 1 - size] + option.cost
            better = cost < new[size:]
            new[size:][better] = cost[better]
            pick[size:][better] = index
        best = new
        chosen.append(pick)
    picks, left = [], int(np.argmin(best))
    for sizes, pick in zip(reversed(units), reversed(chosen), strict=True):
        picks.append(int(pick[left]))
        left -= sizes[picks[-1]]
    return picks[::-1]


def _spend_rest(tensors: Sequence[Sequence[Option]], picked: list[Option], budget: int) -> list[Option]:
    """Change single tensors while bytes are left for it, the largest gain first."""
    left = budget - sum(option.nbytes for option in picked)
    while True:
        changes = [
            (now.cost - option.cost, index, option)
            for index, (now, options) in enumerate(zip(picked, tensors, strict=True))
            for option in options
            if option.nbytes - now.nbytes <= left and option.cost < now.cost
        ]
        if not changes:
            return picked
        _, index, option = max(changes, key=lambda change: change[0])
        left -= option.nbytes - picked[index].nbytes
        picked[index] = option
