"""Search for superblocks whose sub-blocks have a quantized scale and no minimum: ``w = d * sc * level``.

The NumPy definition of ``quant/native/codecs/super_blocks.hpp``, with equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from sprat.arrays import F32Array
from sprat.quant.formats.shared.arithmetic import clipped_rint, divide, reciprocal, saturate_f16, signed_absmax
from sprat.quant.formats.shared.fit import adopt, column_sums, residual, scale_fit, weigh

__all__ = ["Levels", "Scaled", "fit_scaled"]

_STEPS = (0, -1, 1)  # around a rounded scale


class Levels(msgspec.Struct, frozen=True):
    """Code levels of a sub-block, and the integers that its scale may be.

    Attributes:
        nearest: levels nearest to values that are divided by their scale.
        starts: levels to which the search first maps the absmax; see :func:`~sprat.quant.formats.shared.fit.scale_fit`.
        smallest_sc: the smallest integer scale, a negative power of two; the largest is ``-smallest_sc - 1``.
        rounds: how often the integers are searched, each time after ``d`` was refitted to the integers before.
    """

    nearest: Callable[[F32Array], F32Array]
    starts: Sequence[float]
    smallest_sc: int
    rounds: int = 3


class Scaled(msgspec.Struct, frozen=True):
    """``n`` superblocks of ``b`` sub-blocks: ``d`` ``(n, 1)``, ``sc`` ``(n, b)``."""

    d: F32Array
    sc: F32Array

    def scale(self) -> F32Array:
        """``d * sc``, one per lane: ``(n * b,)``."""
        return (self.d * self.sc).ravel()


def fit_scaled(x: F32Array, n_sub: int, levels: Levels, w: F32Array | None) -> Scaled:
    """Fit ``x`` ``(elements, n * n_sub)``, whose squared errors have the weights ``w``.

    1. Least squares gives each sub-block a float scale.
    2. The scale of largest magnitude becomes ``smallest_sc``, and each sub-block takes the integer near its own scale
       with the smallest error.
    3. ``d`` is refitted to integers and levels, and the integers are searched again; the best round is kept.
    """
    s = scale_fit(x, levels.nearest, levels.starts, w).reshape(-1, n_sub)
    d = saturate_f16(signed_absmax(s, axis=1) / np.float32(levels.smallest_sc))
    sc, error = _round_scales(x, s, d, levels, w)
    best = Scaled(d, sc)
    last = best
    for _ in range(levels.rounds - 1):
        d = _refit(x, last, levels, w)
        sc, new_error = _round_scales(x, s, d, levels, w)
        last = Scaled(d, sc)
        better = new_error < error
        best = Scaled(np.where(better[:, None], d, best.d), np.where(better[:, None], sc, best.sc))
        error = np.where(better, new_error, error)
    return best


def _round_scales(
    x: F32Array, s: F32Array, d: F32Array, levels: Levels, w: F32Array | None
) -> tuple[F32Array, F32Array]:
    """The integers near ``s / d`` with the smallest error, and that error ``(n,)``."""
    low, high = levels.smallest_sc, -levels.smallest_sc - 1
    center = clipped_rint(s * reciprocal(d), low, high)
    sc, error = center.copy(), np.full(x.shape[1], np.inf, np.float32)
    for step in _STEPS:
        new_sc = np.clip(center + np.float32(step), np.float32(low), np.float32(high))
        scale = (d * new_sc).ravel()
        new_error = residual(x, scale * levels.nearest(x * reciprocal(scale)), w)
        adopt(new_error < error, (sc, new_sc), (error, new_error))
    return sc, column_sums(error.reshape(sc.shape).T)


def _refit(x: F32Array, fit: Scaled, levels: Levels, w: F32Array | None) -> F32Array:
    """``d``, float16 ``(n, 1)``, that minimizes the error for the integers and levels of ``fit``."""
    q = levels.nearest(x * reciprocal(fit.scale()))
    product, square = (column_sums(weigh(v, w)).reshape(fit.sc.shape) for v in (x * q, q * q))
    d = divide(column_sums((fit.sc * product).T), column_sums((fit.sc * fit.sc * square).T))
    return saturate_f16(d)[:, None]
