"""Float32 operations that the native core computes bit for bit the same way."""

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array

__all__ = [
    "LARGEST_F16",
    "LARGEST_ROUNDED_F16",
    "clipped_rint",
    "divide",
    "reciprocal",
    "saturate_f16",
    "signed_absmax",
]

LARGEST_F16 = 65504.0
LARGEST_ROUNDED_F16 = float(np.nextafter(np.float32(65520), np.float32(0)))  # rounds to 65504, and 65520 to infinity


def divide(numerator: F32Array, denominator: F32Array) -> F32Array:
    """``numerator / denominator``; 0 where the denominator is 0."""
    return np.where(denominator != 0, numerator / denominator, np.float32(0))


def reciprocal(values: F32Array) -> F32Array:
    """``1 / values``; 0 where a value is 0, infinite where the reciprocal overflows."""
    return np.where(values != 0, np.float32(1) / values, np.float32(0))


def clipped_rint(values: F32Array, smallest: float, largest: float) -> F32Array:
    """Integers in ``smallest .. largest``, rounded to nearest, ties to even."""
    return np.rint(np.clip(values, np.float32(smallest), np.float32(largest)))


def saturate_f16(values: F32Array) -> F32Array:
    """Values rounded to float16, as float32: clipped to the largest finite value, with -0 replaced by 0."""
    return np.clip(values, -LARGEST_F16, LARGEST_F16).astype(np.float16).astype(np.float32) + np.float32(0)


def signed_absmax(values: F32Array, axis: int) -> F32Array:
    """The first value of largest magnitude along ``axis``, with its sign; keeps the axis."""
    return np.take_along_axis(values, np.abs(values).argmax(axis, keepdims=True), axis)
