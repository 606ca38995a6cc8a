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

from sprat.quant.formats.block import F32Array

__all__ = [
    "affine_codes",
    "affine_fit",
    "column_sums",
    "extremes",
    "nearest_whole",
    "over",
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


def over(numerator: F32Array | np.float32, denominator: F32Array) -> F32Array:
    """``numerator / denominator``, and 0 where the denominator is 0."""
    return np.where(denominator != 0, numerator / denominator, np.float32(0))


def extremes(values: F32Array, axis: int) -> F32Array:
    """The first value of largest magnitude along ``axis``, with its sign; the axis is kept."""
    return np.take_along_axis(values, np.abs(values).argmax(axis, keepdims=True), axis)


def nearest_whole(values: F32Array, smallest: float, largest: float) -> F32Array:
    """Whole numbers within the bounds, the even one half way."""
    return np.rint(np.clip(values, np.float32(smallest), np.float32(largest)))


def affine_codes(x: F32Array, s: F32Array, m: F32Array, largest: int) -> F32Array:
    """Codes ``q`` in ``0 .. largest`` that bring ``s * q - m`` nearest to ``x``."""
    return nearest_whole((x + m) * over(np.float32(1), s), 0, largest)


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
    inverse = over(np.float32(1), x.max(axis=0) - low)
    total = column_sums(x)
    s, m, error = np.zeros_like(low), np.zeros_like(low), np.full_like(low, np.inf)

    def keep_better(q: F32Array) -> None:
        new_s, new_m = _affine_least_squares(x, q, total)
        new_error = residual(x, new_s * q - new_m)
        better = new_error < error
        for kept, new in ((s, new_s), (m, new_m), (error, new_error)):
            np.copyto(kept, new, where=better)

    for start in _AFFINE_STARTS:
        step = (np.float32(largest) + start) * inverse
        keep_better(nearest_whole((x - low) * step, 0, largest))
    keep_better(affine_codes(x, s, m, largest))
    return s, m


def scale_fit(x: F32Array, nearest: Callable[[F32Array], F32Array], starts: Iterable[float]) -> F32Array:
    """Scale ``s`` of each column, so that ``x ~ s * nearest(x / s)``; it has the sign that fits better.

    Each start is a level that the extreme value is mapped to; the scale is then fitted to the levels that follow.
    """
    inverse = over(np.float32(1), extremes(x, axis=0)[0])
    s, gain = np.zeros_like(inverse), np.zeros_like(inverse)
    for start in starts:
        q = nearest(x * (np.float32(start) * inverse))
        product = column_sums(x * q)
        new_s = over(product, column_sums(q * q))
        new_gain = product * new_s  # what the fit takes off the squared error
        better = new_gain > gain
        np.copyto(s, new_s, where=better)
        np.copyto(gain, new_gain, where=better)
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
