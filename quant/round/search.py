"""The scale search of calibrated rounding: least squares with one weight per column, over all rows at once.

Rounding with error feedback searches the scales of a block of columns after the errors of the columns before it were
added, with the weights of the LDL decomposition. One weight per column, not per element, makes every sum a product of
a vector and a matrix. Formats whose scales are nested, or whose codes are few, use their own search.
"""

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats import BlockFormat
from sprat.quant.formats.shared.arithmetic import divide, reciprocal
from sprat.quant.round.grid import Grid
from sprat.quant.round.grids import SingleScale

__all__ = ["search", "search_matrix"]

_STARTS = (0.80, 0.86, 0.91, 0.96, 1.0, 1.05)  # of the largest code that the absmax or the range is mapped to
_REFINEMENTS = 2
_FEW_CODES = 16  # with fewer, the best scale may be far from that of the absmax


@np.errstate(divide="ignore", invalid="ignore")  # scales of 0 have defined codes
def search(x: F32Array, importance: F32Array, format: BlockFormat, grid: Grid) -> U8Array:
    """One block of every row, packed with the scales that minimize ``sum(importance * error ** 2)``.

    Args:
        x: the weights, transposed: ``(block_size, n_rows)``.
        importance: of each column's squared errors, ``(block_size,)``, positive.
        format: the block format.
        grid: its grid.

    Returns:
        Blocks ``(n_rows, block_bytes)``.
    """
    if not isinstance(grid, SingleScale) or len(grid.levels) < _FEW_CODES:
        return format.quantize(np.ascontiguousarray(x.T), importance)
    fit = _affine_scales if grid.has_offset else _scales
    scale, offset = fit(x, (importance / importance.max()).astype(np.float32), grid)
    blank = np.zeros((x.shape[1], format.block_bytes), np.uint8)
    blocks = grid.with_scales(blank, scale[:, None], offset[:, None])
    scale, offset = (field[:, 0] for field in grid.scales(blocks))
    return grid.with_codes(blocks, grid.codes((x + offset) * reciprocal(scale)).T)


def search_matrix(weights: F32Array, importance: F32Array, format: BlockFormat, grid: Grid) -> U8Array:
    """All blocks of a matrix by :func:`search`.

    Args:
        weights: ``(n_rows, k)``.
        importance: of each column's squared errors, ``(k,)``.
        format: the block format.
        grid: its grid.

    Returns:
        ``(n_rows, k / block_size, block_bytes)``.
    """
    columns, size = np.ascontiguousarray(weights.T), format.block_size
    floor = np.float32(1e-6) * importance.max() + np.float32(1e-30)
    positive = np.maximum(importance, floor)
    blocks = [slice(start, start + size) for start in range(0, len(columns), size)]
    return np.stack([search(columns[block], positive[block], format, grid) for block in blocks], axis=1)


def _scales(x: F32Array, w: F32Array, grid: Grid) -> tuple[F32Array, F32Array]:
    """The scale with the largest reduction of the weighted squared error."""
    largest = np.take_along_axis(x, np.abs(x).argmax(axis=0, keepdims=True), axis=0)[0]
    inverse, weighted = reciprocal(largest), w[:, None] * x
    best, best_gain = np.zeros_like(largest), np.zeros_like(largest)

    def keep_better(scaled: F32Array) -> None:
        levels = grid.nearest(scaled)
        product = np.einsum("ij,ij->j", weighted, levels)
        scale = divide(product, w @ (levels * levels))
        gain = product * scale
        better = gain > best_gain
        best[better], best_gain[better] = scale[better], gain[better]

    ends = {float(grid.levels[0]), float(grid.levels[-1])}
    for end in sorted(ends):
        for start in _STARTS:
            keep_better(x * (np.float32(end * start) * inverse))
    for _ in range(_REFINEMENTS):
        keep_better(x * reciprocal(best))
    return best, np.zeros_like(best)


def _affine_scales(x: F32Array, w: F32Array, grid: Grid) -> tuple[F32Array, F32Array]:
    """Scale and offset with the smallest weighted squared error."""
    low, span = x.min(axis=0), np.ptp(x, axis=0)
    weighted = w[:, None] * x
    best = np.zeros((2, x.shape[1]), np.float32)
    best_error = np.full(x.shape[1], np.inf, np.float32)
    squares = np.einsum("ij,ij->j", weighted, x)

    def keep_better(scaled: F32Array) -> None:
        q = grid.nearest(scaled)
        scale, offset, error = _least_squares(q, weighted, w, squares)
        better = error < best_error
        best[0, better], best[1, better], best_error[better] = scale[better], offset[better], error[better]

    for start in _STARTS:
        step = divide(np.full_like(span, float(grid.levels[-1]) * start), span)
        centre = (float(grid.levels[-1]) - span * step) / 2
        keep_better((x - low) * step + centre)
    for _ in range(_REFINEMENTS):
        keep_better((x + best[1]) * reciprocal(best[0]))
    return best[0], best[1]


def _least_squares(
    q: F32Array, weighted: F32Array, w: F32Array, squares: F32Array
) -> tuple[F32Array, F32Array, F32Array]:
    """``scale`` and ``offset`` of ``scale * q - offset`` by weighted least squares, and the error they leave."""
    total = np.float32(w.sum())
    sum_q, sum_qq = w @ q, w @ (q * q)
    sum_x, sum_xq = weighted.sum(axis=0), np.einsum("ij,ij->j", weighted, q)
    determinant = total * sum_qq - sum_q * sum_q
    solvable = determinant > np.float32(1e-6) * total * sum_qq
    scale = np.where(solvable, divide(total * sum_xq - sum_q * sum_x, determinant), np.float32(0))
    offset = (scale * sum_q - sum_x) / total
    error = squares - scale * sum_xq + offset * sum_x
    return scale, offset, error
