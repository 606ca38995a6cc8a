"""Rounding with error feedback: GPTQ (arXiv 2210.17323), which is LDLQ (arXiv 2307.13304), on real block formats.

Columns are rounded in order. The error of each is compensated by the columns that follow, as far as their inputs are
correlated. Scales of a block are searched when its first column's turn comes, on the weights with all errors so far.
"""

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, F64Array, U8Array
from sprat.quant.formats import BlockFormat
from sprat.quant.formats.shared.arithmetic import reciprocal
from sprat.quant.round.grid import Grid
from sprat.quant.round.search import search

__all__ = ["feedback_factor", "round_with_feedback"]


@np.errstate(divide="ignore", invalid="ignore")  # scales of 0 have defined codes
def round_with_feedback(weights: F32Array, factor: F32Array, format: BlockFormat, grid: Grid) -> U8Array:
    """Round a matrix so that the errors of its columns cancel in its outputs.

    Args:
        weights: ``(n_rows, k)``.
        factor: from :func:`feedback_factor`, ``(k, k)``.
        format: the block format; its blocks divide ``k``.
        grid: its grid.

    Returns:
        ``(n_rows, k / block_size, block_bytes)``.
    """
    size, columns = format.block_size, np.array(weights.T, np.float32, order="C")
    packed = np.empty((len(weights), weights.shape[1] // size, format.block_bytes), np.uint8)
    importance = np.reciprocal(np.square(np.diagonal(factor)))
    for index, start in enumerate(range(0, len(columns), size)):
        block = slice(start, start + size)
        x = columns[block]
        blocks = search(x, importance[block], format, grid)
        codes, errors = _round_block(x, factor[block, block], grid, *grid.scales(blocks))
        columns[start + size :] -= factor[block, start + size :].T @ errors
        packed[:, index] = grid.with_codes(blocks, codes.T)
    return packed


def feedback_factor(moments: F32Array, damping: float = 0.01) -> F32Array:
    """The upper Cholesky factor of the inverse moments ``(k, k)``.

    Args:
        moments: second moments of the inputs; inputs that are always 0 cost nothing.
        damping: share of the mean square that is added to the diagonal.
    """
    damped: F64Array = moments.astype(np.float64)
    diagonal = np.einsum("ii->i", damped)
    diagonal += damping * float(diagonal.mean()) + 1e-30
    inverse = np.linalg.inv(damped)
    return np.ascontiguousarray(np.linalg.cholesky((inverse + inverse.T) / 2).T.astype(np.float32))


def _round_block(
    x: F32Array, factor: F32Array, grid: Grid, scale: F32Array, offset: F32Array
) -> tuple[U8Array, F32Array]:
    """Codes and scaled errors ``(block_size, n_rows)`` of one block of columns; ``x`` is changed."""
    codes, errors = np.empty(x.shape, np.uint8), np.empty_like(x)
    for sub, start in enumerate(range(0, len(x), grid.sub_block)):
        stop = start + grid.sub_block
        s, o = scale[:, sub], offset[:, sub]
        inverse = reciprocal(s)
        for column in range(start, stop):
            code = grid.codes((x[column] + o) * inverse)
            error = (x[column] - (s * grid.levels[code] - o)) / factor[column, column]
            x[column + 1 : stop] -= factor[column, column + 1 : stop, None] * error
            codes[column], errors[column] = code, error
        x[stop:] -= factor[start:stop, stop:].T @ errors[start:stop]
    return codes, errors
