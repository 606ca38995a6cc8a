"""Search for superblocks whose sub-blocks have a quantized scale and minimum: ``w = d * sc * q - dmin * m``.

First, least squares gives each sub-block float scales. Then the superblock quantizes them to integers times a float16
scale and a float16 minimum, and each sub-block also tries the integers next to its own, because rounding a scale
changes the best minimum and the best codes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.shared.arithmetic import clipped_rint, divide, reciprocal, saturate_f16
from sprat.quant.formats.shared.fit import adopt, affine_codes, affine_fit, column_sums, residual, to_lanes, weigh

__all__ = ["Affine", "SuperBlocks", "fit_super_blocks"]

_STEPS = (0, -1, 1)  # around a rounded scale


@dataclass(frozen=True, slots=True)
class Affine:
    """A format: superblocks of ``n_sub`` sub-blocks, and the largest values of codes and of ``sc`` and ``m``."""

    n_sub: int
    largest: int
    largest_sc: int

    @property
    def size(self) -> int:
        """Weights of a sub-block."""
        return 256 // self.n_sub


@dataclass(frozen=True, slots=True)
class SuperBlocks:
    """``n`` superblocks: ``d``, ``dmin`` ``(n, 1)``; ``sc``, ``m`` ``(n, n_sub)``; ``codes`` ``(n, n_sub, size)``."""

    d: F32Array
    dmin: F32Array
    sc: U8Array
    m: U8Array
    codes: U8Array

    def replaced(self, other: SuperBlocks, where: npt.NDArray[np.bool_]) -> SuperBlocks:
        """``other`` for superblocks where ``where`` is true, else this."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return SuperBlocks(*(np.where(where.reshape(-1, *[1] * (mine.ndim - 1)), new, mine) for mine, new in pairs))


def fit_super_blocks(x: F32Array, format: Affine, w: F32Array | None) -> SuperBlocks:
    """The better of two fits of ``x`` ``(size, n_sub * n)``; the second refits ``d``, ``dmin`` to the first's codes."""
    s, m = (values.reshape(-1, format.n_sub) for values in affine_fit(x, format.largest, w))
    d, dmin = (saturate_f16(values.max(axis=1, keepdims=True) / np.float32(format.largest_sc)) for values in (s, m))
    first, error = _round_scales(x, s, m, (d, dmin), format, w)
    second, second_error = _round_scales(x, s, m, _refit(x, first, w), format, w)
    return first.replaced(second, second_error < error)


def _round_scales(
    x: F32Array, s: F32Array, m: F32Array, units: tuple[F32Array, F32Array], format: Affine, w: F32Array | None
) -> tuple[SuperBlocks, F32Array]:
    """The integers near ``s / d`` and ``m / dmin`` with the smallest error, and that error ``(n,)``."""
    (d, dmin), largest, top = units, format.largest, format.largest_sc
    center_sc, center_m = (clipped_rint(v * reciprocal(unit), 0, top) for v, unit in ((s, d), (m, dmin)))
    sc, minimum, error = center_sc.copy(), center_m.copy(), np.full(x.shape[1], np.inf, np.float32)
    for sc_step, m_step in itertools.product(_STEPS, _STEPS):
        new_sc, new_m = (np.clip(v + np.float32(n), 0, top) for v, n in ((center_sc, sc_step), (center_m, m_step)))
        scale, offset = (d * new_sc).ravel(), (dmin * new_m).ravel()
        new_error = residual(x, scale * affine_codes(x, scale, offset, largest) - offset, w)
        adopt(new_error < error, (sc, new_sc), (minimum, new_m), (error, new_error))
    codes = affine_codes(x, (d * sc).ravel(), (dmin * minimum).ravel(), largest)
    codes = codes.T.reshape(-1, format.n_sub, format.size)
    fit = SuperBlocks(d, dmin, *(v.astype(np.uint8) for v in (sc, minimum, codes)))
    return fit, column_sums(error.reshape(-1, format.n_sub).T)


def _refit(x: F32Array, fit: SuperBlocks, w: F32Array | None) -> tuple[F32Array, F32Array]:
    """``d`` and ``dmin``, float16 ``(n, 1)``, that minimize the squared error for the integers and codes of ``fit``."""
    sc, m = fit.sc.T.astype(np.float32), fit.m.T.astype(np.float32)
    n_sub, size = fit.codes.shape[1:]
    q = to_lanes(fit.codes.astype(np.float32), size)
    sum_q, sum_qq, sum_x, sum_xq = (column_sums(weigh(v, w)).reshape(-1, n_sub).T for v in (q, q * q, x, x * q))
    n = np.full_like(sum_q, size) if w is None else column_sums(w).reshape(-1, n_sub).T
    aa, ab, bb = column_sums(sc * sc * sum_qq), column_sums(sc * m * sum_q), column_sums(m * m * n)
    xa, xb = column_sums(sc * sum_xq), column_sums(m * sum_x)
    determinant = aa * bb - ab * ab
    alone = np.where(aa > 0, np.float32(0), divide(-xb, bb))  # singular: one of the two suffices
    dmin = np.where(determinant > 0, divide(xa * ab - xb * aa, determinant), alone)
    d = np.where((determinant > 0) & ~(dmin < 0), divide(xa * bb - xb * ab, determinant), divide(xa, aa))
    return saturate_f16(np.maximum(d, np.float32(0)))[:, None], saturate_f16(np.maximum(dmin, np.float32(0)))[:, None]
