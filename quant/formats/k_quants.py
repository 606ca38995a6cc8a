"""Q4_K, Q5_K, Q6_K: superblocks of 256 weights, whose sub-blocks have quantized scales.

The search has two stages. First, least squares gives each sub-block float scales. Then the superblock quantizes them to
integers times one float16 scale, and each sub-block also tries the integers next to its own, because rounding a scale
changes the best minimum and the best codes.
"""
# ruff: noqa: N801 - ggml's names

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.arithmetic import LARGEST_F16, clipped_rint, divide, reciprocal, saturate_f16, signed_absmax
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.fit import (
    adopt,
    affine_codes,
    affine_fit,
    column_sums,
    lanes_of,
    residual,
    sanitize,
    scale_fit,
    to_lanes,
    weigh,
)
from sprat.quant.formats.packing import f16_bytes, f16_values, pack_bits, pack_nibbles, unpack_bits, unpack_nibbles

__all__ = ["Q4_K", "Q5_K", "Q6_K"]

_STEPS = (0, -1, 1)  # around a rounded scale
_Q6_STARTS = tuple(-35 + k / 2 for k in range(13))


class Q4_K(
    BlockFormat,
    ggml_type=12,
    file_type=14,
    block_size=256,
    block_bytes=2 + 2 + 12 + 128,
    fallback="Q5_0",
    largest=60 * LARGEST_F16,
    scale_fields={0: 63 * 15, 2: 63},
):
    """``w = d * sc * q - dmin * m``: eight sub-blocks of 32 4-bit codes; ``sc`` and ``m`` have 6 bits."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Search scales and minima of sub-blocks, then of the superblock."""
        fit = _fit_super_blocks(to_lanes(sanitize(blocks), 32), 15, lanes_of(importance, 32))
        codes = fit.codes.reshape(-1, 4, 64)
        return np.concatenate([fit.header(), pack_nibbles(codes).reshape(-1, 128)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * sc * q - dmin * m``."""
        scale, minimum = _unpack_header(packed)
        q = unpack_nibbles(packed[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
        return (scale * q.astype(np.float32) - minimum).reshape(-1, 256)


class Q5_K(
    BlockFormat,
    ggml_type=13,
    file_type=16,
    block_size=256,
    block_bytes=2 + 2 + 12 + 32 + 128,
    fallback="Q5_1",
    largest=60 * LARGEST_F16,
    scale_fields={0: 63 * 31, 2: 63},
):
    """``w = d * sc * q - dmin * m``: like Q4_K, with a fifth bit: bit ``b`` of ``qh[i]`` belongs to sub-block ``b``."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Search scales and minima of sub-blocks, then of the superblock."""
        fit = _fit_super_blocks(to_lanes(sanitize(blocks), 32), 31, lanes_of(importance, 32))
        fifth = np.ascontiguousarray((fit.codes >> 4).transpose(0, 2, 1)).reshape(-1, 256)
        low = pack_nibbles((fit.codes & np.uint8(15)).reshape(-1, 4, 64)).reshape(-1, 128)
        return np.concatenate([fit.header(), pack_bits(fifth), low], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * sc * q - dmin * m``."""
        scale, minimum = _unpack_header(packed)
        fifth = unpack_bits(packed[:, 16:48]).reshape(-1, 32, 8).transpose(0, 2, 1)
        q = unpack_nibbles(packed[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32) | fifth << np.uint8(4)
        return (scale * q.astype(np.float32) - minimum).reshape(-1, 256)


class Q6_K(
    BlockFormat,
    ggml_type=14,
    file_type=18,
    block_size=256,
    block_bytes=128 + 64 + 16 + 2,
    fallback="Q8_0",
    largest=120 * 30 * LARGEST_F16,
    scale_fields={208: 128 * 32},
):
    """``w = d * sc * (q - 32)``: 16 sub-blocks of 16 6-bit codes; ``sc`` is int8.

    Each half of the superblock has four runs of 32 codes, A B C D. ``ql`` has the low nibbles: A with C in the high
    half of the byte, then B with D. A byte of ``qh`` has the upper bits ``DDCCBBAA``.
    """

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Search scales of sub-blocks, then of the superblock."""
        d, sc, codes = _fit_symmetric(to_lanes(sanitize(blocks), 16), lanes_of(importance, 16))
        runs = codes.reshape(-1, 2, 4, 32)
        ql = pack_nibbles((runs & np.uint8(15)).reshape(-1, 2, 128)).reshape(-1, 128)
        qh = np.bitwise_or.reduce((runs >> 4) << np.array([[0], [2], [4], [6]], np.uint8), axis=2).reshape(-1, 64)
        return np.concatenate([ql, qh, sc.view(np.uint8), f16_bytes(d)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * sc * (q - 32)``."""
        low = unpack_nibbles(packed[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
        high = packed[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([[0], [2], [4], [6]], np.uint8) & np.uint8(3)
        q = (low | high << np.uint8(4)).astype(np.float32) - 32
        scale = f16_values(packed[:, 208:]) * packed[:, 192:208].view(np.int8).astype(np.float32)
        return (scale[:, :, None] * q.reshape(-1, 16, 16)).reshape(-1, 256)


@dataclass(frozen=True, slots=True)
class _SuperBlocks:
    """``n`` superblocks: ``d`` and ``dmin`` ``(n, 1)``; ``sc`` and ``m`` ``(n, 8)``; ``codes`` ``(n, 8, 32)``."""

    d: F32Array
    dmin: F32Array
    sc: U8Array
    m: U8Array
    codes: U8Array

    def replaced(self, other: _SuperBlocks, where: npt.NDArray[np.bool_]) -> _SuperBlocks:
        """``other`` for superblocks where ``where`` is true, else this."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return _SuperBlocks(*(np.where(where.reshape(-1, *[1] * (mine.ndim - 1)), new, mine) for mine, new in pairs))

    def header(self) -> U8Array:
        """The first 16 bytes: ``d``, ``dmin``, and the 6-bit ``sc`` and ``m``, the last four split over free bits.

        ::

            byte j      sc[j] | upper two bits of sc[j + 4]      j = 0 .. 3
            byte j + 4   m[j] | upper two bits of  m[j + 4]
            byte j + 8  lower four bits of sc[j + 4] | lower four bits of m[j + 4]
        """
        sc, m = self.sc, self.m
        upper = [v[:, :4] | v[:, 4:] >> np.uint8(4) << np.uint8(6) for v in (sc, m)]
        lower = sc[:, 4:] & np.uint8(15) | m[:, 4:] << np.uint8(4)
        return np.concatenate([f16_bytes(self.d), f16_bytes(self.dmin), *upper, lower], axis=-1)


def _unpack_header(packed: U8Array) -> tuple[F32Array, F32Array]:
    """Scales and minima of the sub-blocks, ``(n, 8, 1)``."""
    sc, m, lower = (packed[:, start : start + 4] for start in (4, 8, 12))
    sc = np.concatenate([sc & 63, lower & 15 | sc >> np.uint8(6) << np.uint8(4)], axis=-1)
    m = np.concatenate([m & 63, lower >> np.uint8(4) | m >> np.uint8(6) << np.uint8(4)], axis=-1)
    d, dmin = f16_values(packed[:, :2]), f16_values(packed[:, 2:4])
    return (d * sc.astype(np.float32))[:, :, None], (dmin * m.astype(np.float32))[:, :, None]


def _fit_super_blocks(x: F32Array, largest: int, w: F32Array | None) -> _SuperBlocks:
    """The better of two fits of ``x`` ``(32, 8 n)``; the second refits ``d`` and ``dmin`` to the first's codes."""
    s, m = (values.reshape(-1, 8) for values in affine_fit(x, largest, w))
    d, dmin = (saturate_f16(values.max(axis=1, keepdims=True) / np.float32(63)) for values in (s, m))
    first, error = _round_scales(x, s, m, (d, dmin), largest, w)
    second, second_error = _round_scales(x, s, m, _refit(x, first, w), largest, w)
    return first.replaced(second, second_error < error)


def _round_scales(
    x: F32Array, s: F32Array, m: F32Array, units: tuple[F32Array, F32Array], largest: int, w: F32Array | None
) -> tuple[_SuperBlocks, F32Array]:
    """The 6-bit integers near ``s / d`` and ``m / dmin`` with the smallest error, and that error ``(n,)``."""
    d, dmin = units
    center_sc, center_m = (clipped_rint(v * reciprocal(unit), 0, 63) for v, unit in ((s, d), (m, dmin)))
    sc, minimum, error = center_sc.copy(), center_m.copy(), np.full(x.shape[1], np.inf, np.float32)
    for sc_step, m_step in itertools.product(_STEPS, _STEPS):
        new_sc, new_m = (np.clip(v + np.float32(n), 0, 63) for v, n in ((center_sc, sc_step), (center_m, m_step)))
        scale, offset = (d * new_sc).ravel(), (dmin * new_m).ravel()
        new_error = residual(x, scale * affine_codes(x, scale, offset, largest) - offset, w)
        adopt(new_error < error, (sc, new_sc), (minimum, new_m), (error, new_error))
    codes = affine_codes(x, (d * sc).ravel(), (dmin * minimum).ravel(), largest)
    fit = _SuperBlocks(d, dmin, *(v.astype(np.uint8) for v in (sc, minimum, codes.T.reshape(-1, 8, 32))))
    return fit, column_sums(error.reshape(-1, 8).T)


def _refit(x: F32Array, fit: _SuperBlocks, w: F32Array | None) -> tuple[F32Array, F32Array]:
    """``d`` and ``dmin``, float16 ``(n, 1)``, that minimize the squared error for the integers and codes of ``fit``."""
    sc, m = fit.sc.T.astype(np.float32), fit.m.T.astype(np.float32)
    q = to_lanes(fit.codes.astype(np.float32), 32)
    sum_q, sum_qq, sum_x, sum_xq = (column_sums(weigh(v, w)).reshape(-1, 8).T for v in (q, q * q, x, x * q))
    n = np.full_like(sum_q, 32) if w is None else column_sums(w).reshape(-1, 8).T
    aa, ab, bb = column_sums(sc * sc * sum_qq), column_sums(sc * m * sum_q), column_sums(m * m * n)
    xa, xb = column_sums(sc * sum_xq), column_sums(m * sum_x)
    determinant = aa * bb - ab * ab
    alone = np.where(aa > 0, np.float32(0), divide(-xb, bb))  # singular: one of the two suffices
    dmin = np.where(determinant > 0, divide(xa * ab - xb * aa, determinant), alone)
    d = np.where((determinant > 0) & ~(dmin < 0), divide(xa * bb - xb * ab, determinant), divide(xa, aa))
    return saturate_f16(np.maximum(d, np.float32(0)))[:, None], saturate_f16(np.maximum(dmin, np.float32(0)))[:, None]


def _fit_symmetric(x: F32Array, w: F32Array | None) -> tuple[F32Array, npt.NDArray[np.int8], U8Array]:
    """``x`` ``(16, 16 n)`` as ``d`` ``(n, 1)``, ``sc`` ``(n, 16)``, and codes from 0 to 63 ``(n, 16, 16)``."""
    s = scale_fit(x, _q6_levels, _Q6_STARTS, w).reshape(-1, 16)
    d = saturate_f16(signed_absmax(s, axis=1) / np.float32(-128))
    center = clipped_rint(s * reciprocal(d), -128, 127)
    sc, error = center.copy(), np.full(x.shape[1], np.inf, np.float32)
    for step in _STEPS:
        new_sc = np.clip(center + np.float32(step), -128, 127)
        scale = (d * new_sc).ravel()
        new_error = residual(x, scale * _q6_levels(x * reciprocal(scale)), w)
        adopt(new_error < error, (sc, new_sc), (error, new_error))
    codes = _q6_levels(x * reciprocal((d * sc).ravel())) + np.float32(32)
    return d, sc.astype(np.int8), codes.T.reshape(-1, 16, 16).astype(np.uint8)


def _q6_levels(scaled: F32Array) -> F32Array:
    return clipped_rint(scaled, -32, 31)
