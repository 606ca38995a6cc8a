"""``Grid``: what a block's codes stand for, ``w = scale * levels[code] - offset``, and how to set its fields.

Rounding with error feedback chooses the code of one weight after the other, and coordinate descent refits a scale while
the codes stay. Both need the fields of a packed block apart: a format's :class:`Grid` reads the scales of its
sub-blocks, and returns packed blocks with other codes or other scales. All arrays have one block per row.

A format without a grid (a codebook of vectors) is rounded by its own search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats import BlockFormat

__all__ = ["Grid", "add_grid", "grid_of"]

_GRIDS: dict[str, Grid] = {}
_TABLE_STEP = 2  # levels are integers, so halfway points are multiples of 1 / 2


class Grid(ABC):
    """The values of a block format's codes.

    Args:
        levels: value of each code, increasing integers, ``(n_codes,)`` with at most 256.
        sub_block: weights that share a scale.
        has_offset: whether sub-blocks have an offset.
    """

    def __init__(self, levels: npt.ArrayLike, *, sub_block: int, has_offset: bool) -> None:
        self.levels: F32Array = np.asarray(levels, np.float32)
        self.sub_block = sub_block
        self.has_offset = has_offset
        self._first, self._last = float(self.levels[0]), float(self.levels[-1])
        self._code_of = None if np.all(np.diff(self.levels) == 1) else _code_table(self.levels)

    def nearest(self, scaled: F32Array) -> F32Array:
        """The level nearest to each of ``scaled``, of the same shape; of two, the even or the lower one."""
        if self._code_of is None:
            return np.rint(np.clip(scaled, self._first, self._last))
        return self.levels[self.codes(scaled)]

    def codes(self, scaled: F32Array) -> U8Array:
        """The code of the level nearest to each of ``scaled``."""
        clipped = np.clip(scaled, self._first, self._last)
        if self._code_of is None:
            return np.asarray((np.rint(clipped) - self._first).astype(np.uint8))
        found: U8Array = self._code_of[np.ceil(_TABLE_STEP * (clipped - self._first)).astype(np.int32)]
        return found

    @abstractmethod
    def scales(self, packed: U8Array) -> tuple[F32Array, F32Array]:
        """Scale and offset of each sub-block, ``(n, n_sub_blocks)`` each; offsets are 0 without one."""

    @abstractmethod
    def with_scales(self, packed: U8Array, scale: F32Array, offset: F32Array) -> U8Array:
        """The blocks with the nearest scales and offsets that they can have; a superblock keeps its own scale."""

    @abstractmethod
    def with_codes(self, packed: U8Array, codes: U8Array) -> U8Array:
        """The blocks with ``codes (n, block_size)``."""


def add_grid(format: BlockFormat, grid: Grid) -> None:
    """Register the grid of ``format``."""
    _GRIDS[format.name] = grid


def grid_of(format: BlockFormat) -> Grid | None:
    """The grid of ``format``; ``None`` for a format that has none: floats, and codebooks of vectors."""
    return _GRIDS.get(format.name)


def _code_table(levels: F32Array) -> U8Array:
    """Code by the number of half steps above the first level, rounded up."""
    halves = np.arange(_TABLE_STEP * int(levels[-1] - levels[0]) + 1) / _TABLE_STEP + levels[0]
    middles = (levels[1:] + levels[:-1]) / 2
    return np.asarray(np.searchsorted(middles, halves).astype(np.uint8))
