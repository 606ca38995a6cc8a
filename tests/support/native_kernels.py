"""What the tests of the native kernels share: one kernel set per instruction set, weights, and int8 activations."""

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
    """Numbers that rounding to int8 does not change, so that products with block formats have one right answer."""
    codes = rng.integers(-127, 128, (n, k // 32, 32))
    codes[..., 0] = 127
    return (codes * 2.0 ** rng.integers(-9, -5, (n, k // 32, 1))).reshape(n, k).astype(np.float32)


def rounded(x):
    """``x`` as products with block formats see it: 32 numbers to a scale, rounded to int8."""
    blocks = np.ascontiguousarray(x, np.float32).reshape(-1, 32)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    return (np.rint(blocks * inverse) * (largest / np.float32(127))).reshape(x.shape)
