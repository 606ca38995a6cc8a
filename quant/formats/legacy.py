"""Q4_0, Q4_1, Q5_0, Q5_1: blocks of 32 codes of 4 or 5 bits, a scale, and in the ``_1`` formats a minimum.

Without importance the bytes equal those of ggml's reference quantizer: the scale is computed from the block's absmax or
range, the codes with the float32 reciprocal of the scale *before* it is rounded to float16, and rounding adds 0.5 and
truncates. With importance, scale and minimum are searched.
"""
# ruff: noqa: N801 - ggml's names

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.shared.arithmetic import LARGEST_F16, clipped_rint, reciprocal, saturate_f16, signed_absmax
from sprat.quant.formats.shared.fit import affine_codes, affine_fit, sanitize, scale_fit, to_lanes
from sprat.quant.formats.shared.packing import (
    f16_bytes,
    f16_values,
    pack_bits,
    pack_nibbles,
    unpack_bits,
    unpack_nibbles,
)

__all__ = ["Q4_0", "Q4_1", "Q5_0", "Q5_1"]


class Q4_0(
    BlockFormat,
    ggml_type=2,
    file_type=2,
    block_size=32,
    block_bytes=2 + 16,
    largest=8 * LARGEST_F16,
    scale_fields={0: 8},
):
    """``w = d * (qs - 8)``."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """The value of largest magnitude becomes code 0, exactly ``-8 d``."""
        d, codes = _symmetric(blocks, importance, zero=8)
        return np.concatenate([f16_bytes(d), pack_nibbles(codes)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * (qs - 8)``."""
        return f16_values(packed[:, :2]) * (unpack_nibbles(packed[:, 2:]).astype(np.float32) - 8)


class Q4_1(
    BlockFormat,
    ggml_type=3,
    file_type=3,
    block_size=32,
    block_bytes=2 + 2 + 16,
    largest=LARGEST_F16,
    scale_fields={0: 15, 2: 1},
):
    """``w = d * qs + m``."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Codes 0 .. 15 span the block from its minimum to its maximum."""
        d, m, codes = _affine(blocks, importance, steps=15)
        return np.concatenate([f16_bytes(d), f16_bytes(m), pack_nibbles(codes)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * qs + m``."""
        return f16_values(packed[:, :2]) * unpack_nibbles(packed[:, 4:]).astype(np.float32) + f16_values(packed[:, 2:4])


class Q5_0(
    BlockFormat,
    ggml_type=6,
    file_type=8,
    block_size=32,
    block_bytes=2 + 4 + 16,
    largest=16 * LARGEST_F16,
    scale_fields={0: 16},
):
    """``w = d * (qs - 16)``; ``qh`` holds the fifth bits."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """The value of largest magnitude becomes code 0, exactly ``-16 d``."""
        d, codes = _symmetric(blocks, importance, zero=16)
        return np.concatenate([f16_bytes(d), _pack_five(codes)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * (qs - 16)``."""
        return f16_values(packed[:, :2]) * (_unpack_five(packed[:, 2:]).astype(np.float32) - 16)


class Q5_1(
    BlockFormat,
    ggml_type=7,
    file_type=9,
    block_size=32,
    block_bytes=2 + 2 + 4 + 16,
    largest=LARGEST_F16,
    scale_fields={0: 31, 2: 1},
):
    """``w = d * qs + m``; ``qh`` holds the fifth bits."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Codes 0 .. 31 span the block from its minimum to its maximum."""
        d, m, codes = _affine(blocks, importance, steps=31)
        return np.concatenate([f16_bytes(d), f16_bytes(m), _pack_five(codes)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * qs + m``."""
        return f16_values(packed[:, :2]) * _unpack_five(packed[:, 4:]).astype(np.float32) + f16_values(packed[:, 2:4])


def _symmetric(blocks: F32Array, importance: F32Array | None, *, zero: int) -> tuple[F32Array, U8Array]:
    """Scale ``(n, 1)`` and codes ``(n, 32)``; the first value of largest magnitude decides the sign of the scale."""
    if importance is not None:
        return _searched_symmetric(blocks, importance, zero)
    d = (signed_absmax(blocks, axis=-1) + np.float32(0)) / np.float32(-zero)  # ggml's scale of all zeros is -0
    return d, _truncate(blocks * reciprocal(d) + np.float32(zero + 0.5), 2 * zero - 1)


def _searched_symmetric(blocks: F32Array, importance: F32Array, zero: int) -> tuple[F32Array, U8Array]:
    """The scale, of either sign, with the smallest weighted error."""

    def levels(scaled: F32Array) -> F32Array:
        return clipped_rint(scaled, -zero, zero - 1)

    x = to_lanes(sanitize(blocks), 32)
    starts = [sign * (zero + k / 2) for sign, last in ((-1, 2), (1, 0)) for k in range(-3, last + 1)]
    d = saturate_f16(scale_fit(x, levels, starts, to_lanes(importance, 32)))
    codes = levels(x * reciprocal(d)) + np.float32(zero)
    return d[:, None], codes.T.astype(np.uint8)


def _affine(blocks: F32Array, importance: F32Array | None, *, steps: int) -> tuple[F32Array, F32Array, U8Array]:
    """Scale and minimum ``(n, 1)``, codes ``(n, 32)``; of +0 and -0, the first is the minimum."""
    if importance is not None:
        return _searched_affine(blocks, importance, steps)
    m = np.take_along_axis(blocks, blocks.argmin(axis=-1, keepdims=True), axis=-1)
    d = (blocks.max(axis=-1, keepdims=True) - m + np.float32(0)) / np.float32(steps)  # +0 if a block has +0 and -0
    return d, m, _truncate((blocks - m) * reciprocal(d) + np.float32(0.5), steps)


def _searched_affine(blocks: F32Array, importance: F32Array, steps: int) -> tuple[F32Array, F32Array, U8Array]:
    """The scale and minimum with the smallest weighted error."""
    x = to_lanes(sanitize(blocks), 32)
    s, negative = affine_fit(x, steps, to_lanes(importance, 32), signed=True)
    d, m = saturate_f16(s), saturate_f16(-negative)
    codes = affine_codes(x, d, -m, steps)
    return d[:, None], m[:, None], codes.T.astype(np.uint8)


def _truncate(values: F32Array, largest: int) -> U8Array:
    """Codes of non-negative values; 0 for NaN and Inf, where a range or a reciprocal overflowed."""
    finite = np.where(np.isfinite(values), values, np.float32(0))
    return np.minimum(finite.astype(np.uint8), np.uint8(largest))


def _pack_five(codes: U8Array) -> U8Array:
    return np.concatenate([pack_bits(codes >> np.uint8(4)), pack_nibbles(codes & np.uint8(15))], axis=-1)


def _unpack_five(packed: U8Array) -> U8Array:
    return unpack_nibbles(packed[:, 4:]) | unpack_bits(packed[:, :4]) << np.uint8(4)
