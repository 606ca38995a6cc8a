"""Measured arithmetic rates of the kernels on this machine, for a device profile."""

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
_ROWS, _COLUMNS = 1024, 2048  # 1.2 MB in int4: fits into the caches of a small board
_MANY_ROWS = 4 * _ROWS  # as many as in a layer: fewer were up to 25 % slower on machines with other tenants
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
        seconds: duration of each measurement; ``None`` for the default.
    """
    duration = _SECONDS if seconds is None else seconds
    rng = np.random.default_rng(0)
    large, matrix, small = _weight("large", _MANY_ROWS), _weight("matrix", _ROWS), _weight("small", 1)
    many = rng.normal(size=(_N_TOKENS, _COLUMNS)).astype(np.float32)
    call_s = _seconds(lambda: kernels.linear(many[:1], small), duration)
    one_s = _seconds(lambda: kernels.linear(many[:1], matrix), duration)
    return KernelRates(
        name=name,
        int8_ops_per_s=_N_TOKENS * _ops(large) / _seconds(lambda: kernels.linear(many, large), duration),
        one_token_ops_per_s=_ops(matrix) / max(one_s - call_s, one_s / 10),
        f32_ops_per_s=_attention_rate(kernels, rng, duration),
        call_s=call_s,
    )


def _attention_rate(kernels: Kernels, rng: np.random.Generator, duration: float) -> float:
    queries = rng.normal(size=(_N_TOKENS, _N_HEADS, _HEAD_DIM)).astype(np.float32)
    entries = rng.normal(size=(_N_KV_HEADS, 2 * _N_TOKENS, _HEAD_DIM)).astype(np.float16)
    attended = 2 * _N_TOKENS - (_N_TOKENS - 1) / 2  # mean KV entries per token, with the causal mask
    seconds = _seconds(
        lambda: kernels.gqa_attention(queries, KeysAndValues(entries, entries), _HEAD_DIM**-0.5), duration
    )
    return 2 * 2 * _N_TOKENS * attended * _N_HEADS * _HEAD_DIM / seconds


def _weight(name: str, n_rows: int) -> Weight:
    """Random rows in Q4_0, repeated."""
    stored = get_format("Q4_0")
    values = np.random.default_rng(1).normal(size=(min(n_rows, _RANDOM_ROWS), _COLUMNS)).astype(np.float32)
    packed = stored.quantize(values).reshape(len(values), -1)
    return Weight(name, stored, (n_rows, _COLUMNS), np.resize(packed, (n_rows, packed.shape[1])))


def _ops(weight: Weight) -> int:
    """Operations of a product with one token."""
    return 2 * math.prod(weight.shape)


def _seconds(call: Callable[[], object], duration: float) -> float:
    """Median seconds of a call, over as many calls as fit into ``duration``, after one warm-up call."""
    call()
    taken: list[float] = []
    end = time.perf_counter() + duration
    while (start := time.perf_counter()) < end or not taken:
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))
