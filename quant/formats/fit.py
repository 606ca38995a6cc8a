"""Scale search for K-quants, I-quants and group formats: least squares over many blocks at once.

Arrays are transposed to lanes: ``(elements, blocks)``, one block per column. A sum over a block adds rows in order. The
native core has one block per vector lane and adds the same float32 values in the same order, so its bytes are the same.

Without activation statistics the expected error of a product is proportional to the squared error of the weights, which
is therefore minimized. ggml weights the error by magnitude, which leaves a larger squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array
from sprat.quant.formats.arithmetic import clipped_rint, divide, reciprocal, signed_absmax

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
    """Replace NaN and values too small for any block by 0, and clip values too large for any block.

    All values of the search then stay far from the limits of float32, and all comparisons are defined.
    """
    known = np.where(np.abs(blocks) >= _SMALLEST_INPUT, blocks, np.float32(0))
    return np.clip(known, -_LARGEST_INPUT, _LARGEST_INPUT)


def column_sums(values: F32Array) -> F32Array:
    """Sum of each column, adding rows in order."""
    total: F32Array = np.zeros(values.shape[1:], np.float32)
    for row in values:
        total += row
    return total


def adopt(better: npt.NDArray[np.bool_], *pairs: tuple[F32Array, F32Array]) -> None:
    """In each pair ``(best, new)``, copy ``new`` to ``best`` where ``better``."""
    for best, new in pairs:
        np.copyto(best, new, where=better.reshape(best.shape))


def affine_codes(x: F32Array, s: F32Array, m: F32Array, largest: int) -> F32Array:
    """Codes ``q`` in ``0 .. largest`` for which ``s * q - m`` is nearest to ``x``."""
    return clipped_rint((x + m) * reciprocal(s), 0, largest)


def residual(x: F32Array, approximation: F32Array) -> F32Array:
    """Squared error of each column."""
    difference = approximation - x
    return column_sums(difference * difference)


def affine_fit(x: F32Array, largest: int) -> tuple[F32Array, F32Array]:
    """Scale ``s >= 0`` and minimum ``m >= 0`` of each column, so that ``x ~ s * q - m`` with ``q`` in ``0 .. largest``.

    1. Nine candidates: codes from dividing the range into ``largest - 1 .. largest + 1`` steps.
    2. For each, scale and minimum by least squares.
    3. The best candidate is refined once, from the codes that its scale and minimum give.
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
        keep_better(clipped_rint((x - low) * step, 0, largest))
    keep_better(affine_codes(x, s, m, largest))
    return s, m


def scale_fit(x: F32Array, nearest: Callable[[F32Array], F32Array], starts: Iterable[float]) -> F32Array:
    """Scale ``s`` of each column, so that ``x ~ s * nearest(x / s)``; its sign is the one with the smaller error.

    Each start is a level to which the absmax is mapped; the scale is then fitted to the resulting levels.
    """
    inverse = reciprocal(signed_absmax(x, axis=0)[0])
    s, gain = np.zeros_like(inverse), np.zeros_like(inverse)
    for start in starts:
        q = nearest(x * (np.float32(start) * inverse))
        product = column_sums(x * q)
        new_s = divide(product, column_sums(q * q))
        new_gain = product * new_s  # reduction of the squared error
        adopt(new_gain > gain, (s, new_s), (gain, new_gain))
    return s


def _affine_least_squares(x: F32Array, q: F32Array, total: F32Array) -> tuple[F32Array, F32Array]:
    """``s`` and ``m``, both at least 0, that minimize the error of ``s * q - m``; ``total`` is the sum of ``x``."""
    n = np.float32(len(x))
    sum_q, sum_qq, sum_xq = column_sums(q), column_sums(q * q), column_sums(x * q)
    determinant = n * sum_qq - sum_q * sum_q  # exact: integers below 2^24
    s = divide(n * sum_xq - total * sum_q, determinant)
    m = np.where(determinant != 0, divide(sum_q * sum_xq - total * sum_qq, determinant), total / -n)
    through_zero = m < 0
    s = np.where(through_zero, divide(sum_xq, sum_qq), s)
    return np.maximum(s, np.float32(0)), np.where(through_zero, np.float32(0), m)
