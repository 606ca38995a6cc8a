"""Coordinate descent on ``trace(D H D.T)``: sub-block by sub-block, scales refitted with the full moments, then codes.

Rounding with error feedback never comes back to a column. Descent does: for the codes that a sub-block has, the best
scale and offset follow from a quadratic in one or two unknowns; for these scales, each code moves to the level that the
errors of all other columns ask for. No step increases the objective.
"""

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats import BlockFormat
from sprat.quant.formats.shared.arithmetic import divide, reciprocal
from sprat.quant.round.grid import Grid

__all__ = ["descend"]


@np.errstate(divide="ignore", invalid="ignore")  # scales of 0 have defined codes
def descend(
    packed: U8Array, weights: F32Array, moments: F32Array, format: BlockFormat, grid: Grid, passes: int
) -> U8Array:
    """Improve packed blocks.

    Args:
        packed: ``(n_rows, n_blocks, block_bytes)``.
        weights: the weights that they stand for, ``(n_rows, k)``.
        moments: second moments of the inputs, ``(k, k)``.
        format: the block format.
        grid: its grid.
        passes: how often every block is visited.

    Returns:
        Blocks of the same shape.
    """
    size, out = format.block_size, packed.copy()
    values = np.ascontiguousarray(format.dequantize(packed.reshape(len(packed), -1)).T)
    gradient = moments @ (values - weights.T)
    for _ in range(passes):
        for index, start in enumerate(range(0, len(values), size)):
            block = slice(start, start + size)
            before = values[block].copy()
            local = _Block(values[block], gradient[block].copy(), moments[block, block], grid, out[:, index])
            local.visit()
            out[:, index] = local.packed
            gradient += moments[:, block] @ (values[block] - before)
    return out


class _Block:
    """One block of every row: its values ``(block_size, n_rows)``, the gradient there, and its packed fields."""

    def __init__(self, values: F32Array, gradient: F32Array, moments: F32Array, grid: Grid, packed: U8Array) -> None:
        self.values, self.gradient, self.moments, self.grid = values, gradient, moments, grid
        self.packed = packed
        self._scale, self._offset = grid.scales(packed)
        self._codes = np.empty(values.shape, np.uint8)

    def visit(self) -> None:
        """Refit every sub-block, then its codes."""
        width = self.grid.sub_block
        for sub, start in enumerate(range(0, len(self.values), width)):
            rows = slice(start, start + width)
            levels = self._levels(rows, sub)
            self._refit(rows, sub, levels)
            self._move_codes(rows, sub)
        self.packed = self.grid.with_codes(self.packed, self._codes.T)

    def _levels(self, rows: slice, sub: int) -> F32Array:
        """The levels of a sub-block's codes, read back from its values."""
        scale, offset = self._scale[:, sub], self._offset[:, sub]
        return self.grid.nearest((self.values[rows] + offset) * reciprocal(scale))

    def _refit(self, rows: slice, sub: int, levels: F32Array) -> None:
        """The best scale and offset for ``levels`` that the block can have, where they are an improvement."""
        gradient, moments = self.gradient[rows], self.moments[rows, rows]
        pressed = moments @ levels
        slope, curve = np.einsum("ij,ij->j", gradient, levels), np.einsum("ij,ij->j", levels, pressed)
        scale, offset = self._scale.copy(), self._offset.copy()
        if self.grid.has_offset:
            push, cross, total = gradient.sum(axis=0), pressed.sum(axis=0), np.float32(moments.sum())
            determinant = curve * total - cross * cross
            scale[:, sub] -= divide(slope * total - push * cross, determinant)
            offset[:, sub] += divide(push * curve - slope * cross, determinant)
        else:
            scale[:, sub] -= divide(slope, curve)
        packed = self.grid.with_scales(self.packed, scale, offset)
        scale, offset = self.grid.scales(packed)
        change = scale[:, sub] * levels - offset[:, sub] - self.values[rows]
        pushed = moments @ change
        better = np.einsum("ij,ij->j", change, gradient + np.float32(0.5) * pushed) < 0
        self.packed = np.where(better[:, None], packed, self.packed)
        self._scale, self._offset = self.grid.scales(self.packed)
        self.values[rows] += np.where(better, change, np.float32(0))
        self.gradient += self.moments[:, rows] @ np.where(better, change, np.float32(0))

    def _move_codes(self, rows: slice, sub: int) -> None:
        """Move one code after the other to its best level."""
        scale, offset = self._scale[:, sub], self._offset[:, sub]
        inverse, local = reciprocal(scale), self.gradient[rows].copy()
        before, moments = self.values[rows].copy(), self.moments[rows, rows]
        for i in range(rows.stop - rows.start):
            value = self.values[rows.start + i]
            curve = moments[i, i]
            target = value - local[i] / curve if curve > 0 else value
            code = self.grid.codes((target + offset) * inverse)
            moved = scale * self.grid.levels[code] - offset
            local += moments[:, i, None] * (moved - value)
            self._codes[rows.start + i] = code
            self.values[rows.start + i] = moved
        self.gradient += self.moments[:, rows] @ (self.values[rows] - before)
