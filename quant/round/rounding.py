"""Rounding of one matrix to packed blocks, at one of several levels of effort."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats import BlockFormat
from sprat.quant.round.descent import descend
from sprat.quant.round.feedback import feedback_factor, round_with_feedback
from sprat.quant.round.grid import grid_of

__all__ = ["Effort", "MatrixRounder", "output_error", "round_matrix"]

_FEEDBACK_COLUMNS = 4096  # errors are fed back within as many: the factor of 10,944 in float64 would take 5 GB


@dataclass(frozen=True, slots=True)
class Effort:
    """The steps of rounding.

    Attributes:
        feedback: round with error feedback.
        passes: passes of coordinate descent after it.
    """

    feedback: bool = True
    passes: int = 3


class MatrixRounder:
    """Rounds the rows of a matrix for the inputs that it gets; rows may come in parts.

    Args:
        moments: second moments of the inputs, ``(k, k)``; their diagonal ``(k,)`` is enough without feedback.
        format: the block format; its blocks divide ``k``.
        effort: the steps; all of them start from the weighted search.
    """

    def __init__(self, moments: F32Array, format: BlockFormat, effort: Effort) -> None:
        grid = grid_of(format)
        self._moments, self._format, self._effort = moments, format, effort
        self._grid = grid if effort.feedback else None
        starts = range(0, len(moments), _FEEDBACK_COLUMNS) if self._grid else ()
        groups = [slice(start, start + _FEEDBACK_COLUMNS) for start in starts]
        self._factors = [(group, feedback_factor(moments[group, group])) for group in groups]

    def round(self, weights: F32Array) -> U8Array:
        """Rows ``(n, k)`` to packed rows ``(n, row_bytes)``."""
        format, grid = self._format, self._grid
        if grid is None:
            moments = self._moments
            importance = moments if moments.ndim == 1 else np.diagonal(moments)
            return format.quantize(weights, np.ascontiguousarray(importance))
        parts = [round_with_feedback(weights[:, group], factor, format, grid) for group, factor in self._factors]
        packed = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if self._effort.passes:
            packed = descend(packed, weights, self._moments, format, grid, self._effort.passes)
        return packed.reshape(len(weights), -1)


def round_matrix(weights: F32Array, moments: F32Array, format: BlockFormat, effort: Effort) -> U8Array:
    """Round a whole matrix ``(n_rows, k)``; see :class:`MatrixRounder`."""
    return MatrixRounder(moments, format, effort).round(weights)


def output_error(weights: F32Array, packed: U8Array, moments: F32Array, format: BlockFormat) -> float:
    """Mean squared error of the outputs, summed over rows: ``trace(D H D.T)``."""
    difference = format.dequantize(packed) - weights
    return float(np.einsum("ij,ij->", difference @ moments, difference, dtype=np.float64))
