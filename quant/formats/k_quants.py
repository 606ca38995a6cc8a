"""Q4_K, Q5_K, Q6_K: superblocks of 256 weights, whose sub-blocks have quantized scales."""
# ruff: noqa: N801 - ggml's names

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.shared.affine_super_blocks import Affine, SuperBlocks, fit_super_blocks
from sprat.quant.formats.shared.arithmetic import LARGEST_F16, clipped_rint, reciprocal
from sprat.quant.formats.shared.fit import lanes_of, sanitize, to_lanes
from sprat.quant.formats.shared.packing import (
    f16_bytes,
    f16_values,
    pack_bits,
    pack_nibbles,
    unpack_bits,
    unpack_nibbles,
)
from sprat.quant.formats.shared.super_blocks import Levels, fit_scaled

__all__ = ["Q4_K", "Q5_K", "Q6_K"]

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
        fit = fit_super_blocks(to_lanes(sanitize(blocks), 32), Affine(8, 15, 63), lanes_of(importance, 32))
        codes = fit.codes.reshape(-1, 4, 64)
        return np.concatenate([_pack_header(fit), pack_nibbles(codes).reshape(-1, 128)], axis=-1)

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
        fit = fit_super_blocks(to_lanes(sanitize(blocks), 32), Affine(8, 31, 63), lanes_of(importance, 32))
        fifth = np.ascontiguousarray((fit.codes >> 4).transpose(0, 2, 1)).reshape(-1, 256)
        low = pack_nibbles((fit.codes & np.uint8(15)).reshape(-1, 4, 64)).reshape(-1, 128)
        return np.concatenate([_pack_header(fit), pack_bits(fifth), low], axis=-1)

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
        x = to_lanes(sanitize(blocks), 16)
        fit = fit_scaled(x, 16, Levels(_q6_levels, _Q6_STARTS, -128, rounds=1), lanes_of(importance, 16))
        runs = (_q6_levels(x * reciprocal(fit.scale())) + 32).T.reshape(-1, 2, 4, 32).astype(np.uint8)
        ql = pack_nibbles((runs & np.uint8(15)).reshape(-1, 2, 128)).reshape(-1, 128)
        qh = np.bitwise_or.reduce((runs >> 4) << np.array([[0], [2], [4], [6]], np.uint8), axis=2).reshape(-1, 64)
        return np.concatenate([ql, qh, fit.sc.astype(np.int8).view(np.uint8), f16_bytes(fit.d)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * sc * (q - 32)``."""
        low = unpack_nibbles(packed[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
        high = packed[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([[0], [2], [4], [6]], np.uint8) & np.uint8(3)
        q = (low | high << np.uint8(4)).astype(np.float32) - 32
        scale = f16_values(packed[:, 208:]) * packed[:, 192:208].view(np.int8).astype(np.float32)
        return (scale[:, :, None] * q.reshape(-1, 16, 16)).reshape(-1, 256)


def _pack_header(fit: SuperBlocks) -> U8Array:
    """The first 16 bytes: ``d``, ``dmin``, and the 6-bit ``sc`` and ``m``, the last four split over free bits.

    ::

        byte j      sc[j] | upper two bits of sc[j + 4]      j = 0 .. 3
        byte j + 4   m[j] | upper two bits of  m[j + 4]
        byte j + 8  lower four bits of sc[j + 4] | lower four bits of m[j + 4]
    """
    sc, m = fit.sc, fit.m
    upper = [v[:, :4] | v[:, 4:] >> np.uint8(4) << np.uint8(6) for v in (sc, m)]
    lower = sc[:, 4:] & np.uint8(15) | m[:, 4:] << np.uint8(4)
    return np.concatenate([f16_bytes(fit.d), f16_bytes(fit.dmin), *upper, lower], axis=-1)


def _unpack_header(packed: U8Array) -> tuple[F32Array, F32Array]:
    """Scales and minima of the sub-blocks, ``(n, 8, 1)``."""
    sc, m, lower = (packed[:, start : start + 4] for start in (4, 8, 12))
    sc = np.concatenate([sc & 63, lower & 15 | sc >> np.uint8(6) << np.uint8(4)], axis=-1)
    m = np.concatenate([m & 63, lower >> np.uint8(4) | m >> np.uint8(6) << np.uint8(4)], axis=-1)
    d, dmin = f16_values(packed[:, :2]), f16_values(packed[:, 2:4])
    return (d * sc.astype(np.float32))[:, :, None], (dmin * m.astype(np.float32))[:, :, None]


def _q6_levels(scaled: F32Array) -> F32Array:
    return clipped_rint(scaled, -32, 31)
