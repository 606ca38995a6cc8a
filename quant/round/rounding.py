"""One matrix to packed blocks, with as much effort as asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats import BlockFormat
from sprat.quant.round.descent import descend
from sprat.quant.round.feedback import feedback_factor, round_with_feedback
from sprat.quant.round.grid import grid_of
from sprat.quant.round.moments import diagonal_of

__all__ = ["Effort", "output_error", "round_matrix"]


@dataclass(frozen=True, slots=True)
class Effort:
    """The steps of rounding.

    Attributes:
        feedback: round with error feedback.
        passes: passes of coordinate descent after it.
    """

    feedback: bool = True
    passes: int = 3


def round_matrix(weights: F32Array, moments: F32Array, format: BlockFormat, effort: Effort) -> U8Array:
    """Round a matrix for the inputs that it gets.

    Args:
        weights: ``(n_rows, k)``.
        moments: second moments of the inputs, ``(k, k)``; without feedback their diagonal ``(k,)`` is enough.
        format: the block format; its blocks divide ``k``.
        effort: the steps; all of them start from the weighted search.

    Returns:
        ``(n_rows, row_bytes)``.
    """
    grid = grid_of(format)
    if grid is None or not effort.feedback:
        return format.quantize(weights, np.ascontiguousarray(diagonal_of(moments)))
    packed = round_with_feedback(weights, feedback_factor(moments), format, grid)
    if effort.passes:
        packed = descend(packed, weights, moments, format, grid, effort.passes)
    return packed.reshape(len(weights), -1)


def output_error(weights: F32Array, packed: U8Array, moments: F32Array, format: BlockFormat) -> float:
    """Mean squared error of the outputs, summed over rows: ``trace(D H D.T)``."""
    difference = format.dequantize(packed) - weights
    return float(np.einsum("ij,ij->", difference @ moments, difference, dtype=np.float64))
