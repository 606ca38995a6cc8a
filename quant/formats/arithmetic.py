"""Float32 steps that the native core takes in exactly the same way."""

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array

__all__ = ["extremes", "nearest_whole", "over", "reciprocal", "saturate_f16"]


def over(numerator: F32Array, denominator: F32Array) -> F32Array:
    """``numerator / denominator``, and 0 where the denominator is 0."""
    return np.where(denominator != 0, numerator / denominator, np.float32(0))


def reciprocal(values: F32Array) -> F32Array:
    """``1 / values``, and 0 where a value is 0; infinite where it is so small that its reciprocal overflows."""
    return np.where(values != 0, np.float32(1) / values, np.float32(0))


def nearest_whole(values: F32Array, smallest: float, largest: float) -> F32Array:
    """Whole numbers within the bounds, the even one half way."""
    return np.rint(np.clip(values, np.float32(smallest), np.float32(largest)))


def saturate_f16(values: F32Array) -> F32Array:
    """The nearest binary16 of each value, as float32: the largest finite one instead of infinity, and no -0."""
    return np.clip(values, -65504, 65504).astype(np.float16).astype(np.float32) + np.float32(0)


def extremes(values: F32Array, axis: int) -> F32Array:
    """The first value of largest magnitude along ``axis``, with its sign; the axis is kept."""
    return np.take_along_axis(values, np.abs(values).argmax(axis, keepdims=True), axis)
