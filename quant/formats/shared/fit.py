"""Scale search for K-quants, I-quants and group formats: least squares over many blocks at once.

Arrays are transposed to lanes: ``(elements, blocks)``, one block per column. A sum over a block adds rows in order. The
native core has one block per vector lane and adds the same float32 values in the same order, so its bytes are the same.

Without activation statistics the expected error of a product is proportional to the squared error of the weights, which
is therefore minimized. ggml weights the error by magnitude, which leaves a larger squared error. With them, each
squared error is weighted by its column's importance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array
from sprat.quant.formats.shared.arithmetic import clipped_rint, divide, reciprocal, signed_absmax

__all__ = [
    "adopt",
    "affine_codes",
    "affine_fit",
    "column_sums",
    "lanes_of",
    "residual",
    "sanitize",
    "scale_fit",
    "to_lanes",
    "weigh",
]

_SMALLEST_INPUT, _LARGEST_INPUT = np.float32(2.0**-60), np.float32(2.0**30)
_REFINEMENTS = 3  # of a weighted search
_ROUNDING = np.float32(2.0**-18)
_AFFINE_STARTS = tuple(np.float32(k / 4) for k in range(-4, 5))
_WEIGHTED_STARTS = tuple(np.float32(k / 4) for k in range(-4, 13))  # clipping the least important extremes may pay


def to_lanes(blocks: F32Array, size: int) -> F32Array:
    """``(n, k * size)`` weights as ``(size, n * k)`` lanes."""
    return np.ascontiguousarray(blocks.reshape(-1, size).T)


def lanes_of(importance: F32Array | None, size: int) -> F32Array | None:
    """Importance as lanes; ``None`` stays ``None``."""
    return None if importance is None else to_lanes(importance, size)


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


def weigh(values: F32Array, w: F32Array | None) -> F32Array:
    """``values`` times the weights of their errors; ``None`` for equal weights."""
    return values if w is None else w * values


def affine_codes(x: F32Array, s: F32Array, m: F32Array, largest: int) -> F32Array:
    """Codes ``q`` in ``0 .. largest`` for which ``s * q - m`` is nearest to ``x``."""
    return clipped_rint((x + m) * reciprocal(s), 0, largest)


def residual(x: F32Array, approximation: F32Array, w: F32Array | None = None) -> F32Array:
    """Squared error of each column, weighted by ``w``."""
    difference = approximation - x
    return column_sums(weigh(difference * difference, w))


def affine_fit(
    x: F32Array, largest: int, w: F32Array | None = None, *, signed: bool = False
) -> tuple[F32Array, F32Array]:
    """Scale ``s >= 0`` and minimum ``m >= 0`` of each column, so that ``x ~ s * q - m`` with ``q`` in ``0 .. largest``.

    1. Nine candidates: codes from dividing the range into ``largest - 1 .. largest + 1`` steps; with ``w`` 17, up to
       ``largest + 3``.
    2. For each, scale and minimum by least squares.
    3. The best candidate is refined, from the codes that its scale and minimum give: once, or with ``w`` three times.

    Args:
        x: ``(elements, blocks)``.
        largest: the largest code.
        w: weights of the squared errors, like ``x``; ``None`` for equal ones.
        signed: ``m`` may be negative, and the range need not include 0.
    """
    low = x.min(axis=0) if signed else np.minimum(x.min(axis=0), np.float32(0))
    inverse = reciprocal(x.max(axis=0) - low)
    sums = _Sums.of(x, w)
    s, m, error = np.zeros_like(low), np.zeros_like(low), np.full_like(low, np.inf)

    def keep_better(q: F32Array) -> None:
        new_s, new_m = _affine_least_squares(x, q, w, sums, signed=signed)
        new_error = residual(x, new_s * q - new_m, w)
        adopt(new_error < error, (s, new_s), (m, new_m), (error, new_error))

    for start in _AFFINE_STARTS if w is None else _WEIGHTED_STARTS:
        step = (np.float32(largest) + start) * inverse
        keep_better(clipped_rint((x - low) * step, 0, largest))
    for _ in range(1 if w is None else _REFINEMENTS):
        keep_better(affine_codes(x, s, m, largest))
    return s, m


def scale_fit(
    x: F32Array, nearest: Callable[[F32Array], F32Array], starts: Iterable[float], w: F32Array | None = None
) -> F32Array:
    """Scale ``s`` of each column, so that ``x ~ s * nearest(x / s)``; its sign is the one with the smaller error.

    Each start is a level to which the absmax is mapped; the scale is then fitted to the resulting levels. With weights
    ``w`` of the squared errors, the best scale is refined from the levels that it gives.
    """
    inverse = reciprocal(signed_absmax(x, axis=0)[0])
    s, gain = np.zeros_like(inverse), np.zeros_like(inverse)

    def keep_better(q: F32Array) -> None:
        product = column_sums(weigh(x * q, w))
        new_s = divide(product, column_sums(weigh(q * q, w)))
        new_gain = product * new_s  # reduction of the squared error
        adopt(new_gain > gain, (s, new_s), (gain, new_gain))

    for start in starts:
        keep_better(nearest(x * (np.float32(start) * inverse)))
    for _ in range(0 if w is None else _REFINEMENTS):
        keep_better(nearest(x * reciprocal(s)))
    return s


class _Sums(msgspec.Struct, frozen=True):
    """Sums over a block that do not depend on its codes: of weights, and of weighted ``x``."""

    n: F32Array
    x: F32Array
    rounding: np.float32  # relative size below which a determinant is taken for 0

    @classmethod
    def of(cls, x: F32Array, w: F32Array | None) -> _Sums:
        if w is None:  # sums of codes are integers below 2^24: exact
            return cls(np.full(x.shape[1], len(x), np.float32), column_sums(x), np.float32(0))
        return cls(column_sums(w), column_sums(w * x), _ROUNDING)


def _affine_least_squares(
    x: F32Array, q: F32Array, w: F32Array | None, sums: _Sums, *, signed: bool
) -> tuple[F32Array, F32Array]:
    """``s >= 0`` and ``m``, at least 0 unless ``signed``, that minimize the error of ``s * q - m``."""
    sum_q, sum_qq, sum_xq = (column_sums(weigh(v, w)) for v in (q, q * q, x * q))
    square = sums.n * sum_qq
    determinant = square - sum_q * sum_q
    determinant = np.where(determinant > sums.rounding * square, determinant, np.float32(0))
    s = divide(sums.n * sum_xq - sums.x * sum_q, determinant)
    m = np.where(determinant != 0, divide(sum_q * sum_xq - sums.x * sum_qq, determinant), sums.x / -sums.n)
    if not signed:
        through_zero = m < 0
        s = np.where(through_zero, divide(sum_xq, sum_qq), s)
        m = np.where(through_zero, np.float32(0), m)
    return np.maximum(s, np.float32(0)), m
