"""Bit layouts that block formats share: float16 fields, nibbles, pairs of bits, and single bits."""

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array

__all__ = [
    "f16_bytes",
    "f16_values",
    "pack_bits",
    "pack_nibbles",
    "pack_pairs",
    "unpack_bits",
    "unpack_nibbles",
    "unpack_pairs",
]

_SHIFTS = np.array([[0], [2], [4], [6]], np.uint8)


def f16_bytes(values: F32Array) -> U8Array:
    """``(n, f)`` float32 as ``(n, 2 f)`` bytes of float16, rounded to nearest even."""
    return np.ascontiguousarray(values).astype("<f2").view(np.uint8)


def f16_values(packed: U8Array) -> F32Array:
    """``(n, 2 f)`` bytes of float16 as ``(n, f)`` float32."""
    return np.ascontiguousarray(packed).view("<f2").astype(np.float32)


def pack_nibbles(codes: U8Array) -> U8Array:
    """``(..., 2 h)`` codes below 16 to ``(..., h)`` bytes: the first half in low nibbles, the second in high ones."""
    half = codes.shape[-1] // 2
    return codes[..., :half] | codes[..., half:] << np.uint8(4)


def unpack_nibbles(packed: U8Array) -> U8Array:
    """Inverse of :func:`pack_nibbles`."""
    return np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)


def pack_bits(bits: U8Array) -> U8Array:
    """``(n, 8 b)`` bits to ``(n, b)`` bytes, the first bit lowest."""
    return np.packbits(bits, axis=-1, bitorder="little")


def unpack_bits(packed: U8Array) -> U8Array:
    """Inverse of :func:`pack_bits`."""
    return np.unpackbits(packed, axis=-1, bitorder="little")


def pack_pairs(codes: U8Array) -> U8Array:
    """``(..., 4, n)`` codes below 4 to ``(..., n)`` bytes: the first row in the lowest two bits."""
    packed: U8Array = np.bitwise_or.reduce(codes << _SHIFTS, axis=-2)
    return packed


def unpack_pairs(packed: U8Array) -> U8Array:
    """Inverse of :func:`pack_pairs`."""
    return packed[..., None, :] >> _SHIFTS & np.uint8(3)
