"""Arithmetic rates of a set of kernels on this machine, as a device profile records them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from sprat.devices.probe import KernelRates
from sprat.quant.formats import get_format
from sprat.runtime.cache import KeysAndValues
from sprat.runtime.kernels.contract import Kernels
from sprat.runtime.kernels.native import NativeKernels, instruction_sets, native_missing_because
from sprat.runtime.kernels.reference import ReferenceKernels
from sprat.runtime.weights import Weight

__all__ = ["kernel_rates", "measure_rates"]

_SECONDS = 0.5  # for each rate
_N_TOKENS = 512
_ROWS, _COLUMNS = 1024, 2048  # 1.2 MB in int4: the caches of a small board hold it
_MANY_ROWS = 4 * _ROWS  # as many as a layer's: fewer were up to a quarter slower on caches shared with others
_RANDOM_ROWS = 256
_N_HEADS, _N_KV_HEADS, _HEAD_DIM = 16, 4, 128


def measure_rates(n_threads: int, seconds: float | None = None) -> KernelRates:
    """Rates of the kernels that sprat uses on this machine; see :func:`kernel_rates`."""
    if native_missing_because():
        return kernel_rates(ReferenceKernels(dense_bytes=_MANY_ROWS * _COLUMNS * 8), "reference", seconds)
    return kernel_rates(NativeKernels(n_threads), f"native {instruction_sets()[0]}", seconds)


def kernel_rates(kernels: Kernels, name: str, seconds: float | None = None) -> KernelRates:
    """Time each kind of product.

    Args:
        kernels: the kernels to measure.
        name: their name in the record.
        seconds: of measuring for each rate; ``None`` for the default.
    """
    lasting = _SECONDS if seconds is None else seconds
    rng = np.random.default_rng(0)
    large, matrix, small = _weight("large", _MANY_ROWS), _weight("matrix", _ROWS), _weight("small", 1)
    many = rng.normal(size=(_N_TOKENS, _COLUMNS)).astype(np.float32)
    call_s = _seconds(lambda: kernels.linear(many[:1], small), lasting)
    one_s = _seconds(lambda: kernels.linear(many[:1], matrix), lasting)
    return KernelRates(
        name=name,
        int8_ops_per_s=_N_TOKENS * _ops(large) / _seconds(lambda: kernels.linear(many, large), lasting),
        one_token_ops_per_s=_ops(matrix) / max(one_s - call_s, one_s / 10),
        f32_ops_per_s=_attention_rate(kernels, rng, lasting),
        call_s=call_s,
    )


def _attention_rate(kernels: Kernels, rng: np.random.Generator, lasting: float) -> float:
    queries = rng.normal(size=(_N_TOKENS, _N_HEADS, _HEAD_DIM)).astype(np.float32)
    rows = rng.normal(size=(_N_KV_HEADS, 2 * _N_TOKENS, _HEAD_DIM)).astype(np.float16)
    seen = 2 * _N_TOKENS - (_N_TOKENS - 1) / 2  # entries, by a token on average: the last one sees all
    seconds = _seconds(lambda: kernels.gqa_attention(queries, KeysAndValues(rows, rows), _HEAD_DIM**-0.5), lasting)
    return 2 * 2 * _N_TOKENS * seen * _N_HEADS * _HEAD_DIM / seconds


def _weight(name: str, n_rows: int) -> Weight:
    """A few random rows, repeated."""
    stored = get_format("Q4_0")
    numbers = np.random.default_rng(1).normal(size=(min(n_rows, _RANDOM_ROWS), _COLUMNS)).astype(np.float32)
    packed = stored.quantize(numbers).reshape(len(numbers), -1)
    return Weight(name, stored, (n_rows, _COLUMNS), np.resize(packed, (n_rows, packed.shape[1])))


def _ops(weight: Weight) -> int:
    """Operations of a product with one token."""
    return 2 * math.prod(weight.shape)


def _seconds(call: Callable[[], object], lasting: float) -> float:
    """Median seconds of a call, over as many as fit into the time; a first call warms up."""
    call()
    taken: list[float] = []
    end = time.perf_counter() + lasting
    while (start := time.perf_counter()) < end or not taken:
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))
