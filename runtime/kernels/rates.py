"""What a set of kernels reaches on this machine, apart from memory: the rates that a device profile records."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from sprat.devices.probe import KernelRates
from sprat.quant.formats import get_format
from sprat.runtime.cache import KVRows
from sprat.runtime.kernels.contract import Kernels
from sprat.runtime.kernels.native import NativeKernels, instruction_sets, native_missing_because
from sprat.runtime.kernels.reference import ReferenceKernels
from sprat.runtime.weights import Weight

__all__ = ["kernel_rates", "measure_rates"]

_SECONDS = 0.5  # for each rate
_N_TOKENS = 512
_ROWS, _COLUMNS = 1024, 2048  # 1.2 MB in int4: the caches of a small board hold it
_N_HEADS, _N_KV_HEADS, _HEAD_DIM = 16, 4, 128


def measure_rates(n_threads: int) -> KernelRates:
    """The rates of the kernels that sprat would take on this machine."""
    if native_missing_because():
        return kernel_rates(ReferenceKernels(dense_bytes=_ROWS * _COLUMNS * 8), "reference")
    return kernel_rates(NativeKernels(n_threads), f"native {instruction_sets()[0]}")


def kernel_rates(kernels: Kernels, name: str) -> KernelRates:
    """Run each kind of product until its time is known."""
    rng = np.random.default_rng(0)
    matrix, small = _weight("matrix", _ROWS), _weight("small", 1)
    many = rng.normal(size=(_N_TOKENS, _COLUMNS)).astype(np.float32)
    call_s = _seconds(lambda: kernels.linear(many[:1], small))
    ops_per_token = 2 * _ROWS * _COLUMNS
    one_s = _seconds(lambda: kernels.linear(many[:1], matrix))
    return KernelRates(
        name=name,
        int8_ops_per_s=_N_TOKENS * ops_per_token / _seconds(lambda: kernels.linear(many, matrix)),
        one_token_ops_per_s=ops_per_token / max(one_s - call_s, one_s / 10),
        f32_ops_per_s=_attention_rate(kernels, rng),
        call_s=call_s,
    )


def _attention_rate(kernels: Kernels, rng: np.random.Generator) -> float:
    queries = rng.normal(size=(_N_TOKENS, _N_HEADS, _HEAD_DIM)).astype(np.float32)
    rows = rng.normal(size=(_N_KV_HEADS, 2 * _N_TOKENS, _HEAD_DIM)).astype(np.float16)
    seen = 2 * _N_TOKENS - (_N_TOKENS - 1) / 2  # by a token on average: the last ones see all rows
    seconds = _seconds(lambda: kernels.gqa_attention(queries, KVRows(rows, rows), _HEAD_DIM**-0.5))
    return 2 * 2 * _N_TOKENS * seen * _N_HEADS * _HEAD_DIM / seconds


def _weight(name: str, n_rows: int) -> Weight:
    stored = get_format("Q4_0")
    numbers = np.random.default_rng(1).normal(size=(n_rows, _COLUMNS)).astype(np.float32)
    return Weight(name, stored, numbers.shape, stored.quantize(numbers).reshape(n_rows, -1))


def _seconds(call: Callable[[], object]) -> float:
    """Median seconds of a call, over as many as fit the time, the first one aside."""
    call()
    taken: list[float] = []
    end = time.perf_counter() + _SECONDS
    while (start := time.perf_counter()) < end or not taken:
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))
