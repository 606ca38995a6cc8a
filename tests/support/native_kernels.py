"""For tests of the native kernels: a kernel set per instruction set, random weights, and int8 activations."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from sprat.quant.formats import get_format
from sprat.runtime.kernels.native import NATIVE_FORMATS, NativeKernels, instruction_sets, native_missing_because
from sprat.runtime.weights import Weight

BLOCK_FORMATS = sorted(NATIVE_FORMATS - {"F32", "F16", "BF16"})
needs_native = pytest.mark.skipif(not instruction_sets(), reason=native_missing_because() or "present")
every_isa = pytest.mark.parametrize("isa", instruction_sets() or ["none"])


@functools.cache
def kernels_of(isa, n_threads=1):
    return NativeKernels(n_threads, isa)


def random_weight(rng, shape, format_name):
    stored = get_format(format_name)
    values = (rng.normal(size=shape) * shape[-1] ** -0.5).astype(np.float32)
    return Weight("w", stored, shape, stored.quantize(values))


def exact_activations(rng, n, k):
    """Values that quantizing to int8 does not change, so that products with block formats have one right result."""
    codes = rng.integers(-127, 128, (n, k // 32, 32))
    codes[..., 0] = 127
    return (codes * 2.0 ** rng.integers(-9, -5, (n, k // 32, 1))).reshape(n, k).astype(np.float32)


def rounded(x):
    """``x`` quantized to int8 with a scale per 32 values, and dequantized, as products with block formats use it."""
    blocks = np.ascontiguousarray(x, np.float32).reshape(-1, 32)
    absmax = np.abs(blocks).max(axis=1, keepdims=True)
    inverse = np.divide(np.float32(127), absmax, out=np.zeros_like(absmax), where=absmax > 0)
    return (np.rint(blocks * inverse) * (absmax / np.float32(127))).reshape(x.shape)
