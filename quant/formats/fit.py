"""The scale search of the formats that have one: least squares over many blocks at once.

Arrays lie in lanes: ``(elements, blocks)``, one block per column. A sum over a block is a sum over rows in order: the
native core, which gives each block a vector lane, adds the same float32 numbers in the same order and finds the same
bytes.

Without activation statistics the expected error of a product is the squared error of the weights, so that is what is
minimised; ggml weights it by magnitude instead, and ends with a larger error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array
from sprat.quant.formats.arithmetic import extremes, nearest_whole, over, reciprocal

__all__ = [
    "adopt",
    "affine_codes",
    "affine_fit",
    "column_sums",
    "residual",
    "sanitize",
    "scale_fit",
    "to_lanes",
]

_SMALLEST_INPUT, _LARGEST_INPUT = np.float32(2.0**-60), np.float32(2.0**30)
_AFFINE_STARTS = tuple(np.float32(k / 4) for k in range(-4, 5))


def to_lanes(blocks: F32Array, size: int) -> F32Array:
    """``(n, k * size)`` weights as ``(size, n * k)`` lanes."""
    return np.ascontiguousarray(blocks.reshape(-1, size).T)


def sanitize(blocks: F32Array) -> F32Array:
    """NaN and what is too small for any block become 0, and what no block can hold is clipped.

    Every number of the search then stays far from float32's limits, and every comparison is defined.
    """
    known = np.where(np.abs(blocks) >= _SMALLEST_INPUT, blocks, np.float32(0))
    return np.clip(known, -_LARGEST_INPUT, _LARGEST_INPUT)


def column_sums(values: F32Array) -> F32Array:
    """Sum of each column, first row first."""
    total: F32Array = np.zeros(values.shape[1:], np.float32)
    for row in values:
        total += row
    return total


def adopt(better: npt.NDArray[np.bool_], *pairs: tuple[F32Array, F32Array]) -> None:
    """Replace what was best so far by what is ``better``: in each pair, the first array by the second."""
    for best, new in pairs:
        np.copyto(best, new, where=better.reshape(best.shape))


def affine_codes(x: F32Array, s: F32Array, m: F32Array, largest: int) -> F32Array:
    """Codes ``q`` in ``0 .. largest`` that bring ``s * q - m`` nearest to ``x``."""
    return nearest_whole((x + m) * reciprocal(s), 0, largest)


def residual(x: F32Array, approximation: F32Array) -> F32Array:
    """Squared error of each column."""
    difference = approximation - x
    return column_sums(difference * difference)


def affine_fit(x: F32Array, largest: int) -> tuple[F32Array, F32Array]:
    """Scale ``s >= 0`` and minimum ``m >= 0`` of each column, so that ``x ~ s * q - m`` with ``q`` in ``0 .. largest``.

    1. Nine starts: the codes of a range divided into ``largest - 1 .. largest + 1`` steps.
    2. For each, the scale and minimum that fit those codes best.
    3. The best of them once more, from the codes that it would itself choose.
    """
    low = np.minimum(x.min(axis=0), np.float32(0))
    inverse = reciprocal(x.max(axis=0) - low)
    total = column_sums(x)
    s, m, error = np.zeros_like(low), np.zeros_like(low), np.full_like(low, np.inf)

    def keep_better(q: F32Array) -> None:
        new_s, new_m = _affine_least_squares(x, q, total)
        new_error = residual(x, new_s * q - new_m)
        adopt(new_error < error, (s, new_s), (m, new_m), (error, new_error))

    for start in _AFFINE_STARTS:
        step = (np.float32(largest) + start) * inverse
        keep_better(nearest_whole((x - low) * step, 0, largest))
    keep_better(affine_codes(x, s, m, largest))
    return s, m


def scale_fit(x: F32Array, nearest: Callable[[F32Array], F32Array], starts: Iterable[float]) -> F32Array:
    """Scale ``s`` of each column, so that ``x ~ s * nearest(x / s)``; it has the sign that fits better.

    Each start is a level that the extreme value is mapped to; the scale is then fitted to the levels that follow.
    """
    inverse = reciprocal(extremes(x, axis=0)[0])
    s, gain = np.zeros_like(inverse), np.zeros_like(inverse)
    for start in starts:
        q = nearest(x * (np.float32(start) * inverse))
        product = column_sums(x * q)
        new_s = over(product, column_sums(q * q))
        new_gain = product * new_s  # what the fit takes off the squared error
        adopt(new_gain > gain, (s, new_s), (gain, new_gain))
    return s


def _affine_least_squares(x: F32Array, q: F32Array, total: F32Array) -> tuple[F32Array, F32Array]:
    """``s`` and ``m``, neither below 0, that bring ``s * q - m`` nearest to ``x``; ``total`` is the sum of ``x``."""
    n = np.float32(len(x))
    sum_q, sum_qq, sum_xq = column_sums(q), column_sums(q * q), column_sums(x * q)
    determinant = n * sum_qq - sum_q * sum_q  # exact: whole numbers below 2^24
    s = over(n * sum_xq - total * sum_q, determinant)
    m = np.where(determinant != 0, over(sum_q * sum_xq - total * sum_qq, determinant), total / -n)
    through_zero = m < 0
    s = np.where(through_zero, over(sum_xq, sum_qq), s)
    return np.maximum(s, np.float32(0)), np.where(through_zero, np.float32(0), m)
