"""The native kernels: GEMV in GB/s, GEMM in GOP/s, an MoE sublayer in both, and absorbed MLA.

Weights are larger than the CPU's caches, so that GEMV is limited by memory bandwidth; ``read`` is the bandwidth of the
same threads when they only read. Times are the best of many calls, since noise from other tenants only adds.

    python benchmarks/kernels.py --formats Q4_0,Q4_K --threads 2 --isa avx512
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable

import numpy as np

from sprat.arrays import F32Array
from sprat.quant.formats import get_format
from sprat.runtime.cache import STORAGES, EntryLayout, Storage
from sprat.runtime.kernels import MLP, Routes
from sprat.runtime.kernels.native import NATIVE_FORMATS, NativeKernels
from sprat.runtime.weights import Weight

_HIDDEN, _ROWS = 2048, 65_536
_N_EXPERTS, _N_CHOSEN, _WIDTH = 64, 6, 1408  # DeepSeek-V2-Lite
_HEADS, _HEAD, _ROPE, _RANK, _CONTEXT = 16, 128, 64, 512, 4096
_GROUP = 128  # codes per scale of an int8 cache of latents
_N_TOKENS = (2, 4, 8, 48, 512)
_SECONDS = 0.3


def best_seconds(call: Callable[[], object]) -> float:
    """Time of the fastest of at least three calls."""
    call()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def random_weight(shape: tuple[int, ...], format_name: str) -> Weight:
    """A few blocks of normally distributed values, repeated."""
    stored = get_format(format_name)
    values = np.random.default_rng(0).normal(size=(1021, max(stored.block_size, 32))) * 0.02
    packed_shape = (*shape[:-1], stored.row_bytes(shape[-1]))
    packed = np.resize(stored.quantize(values.astype(np.float32)).ravel(), int(np.prod(packed_shape)))
    return Weight("random", stored, shape, packed.reshape(packed_shape))


def activations(n: int, size: int = _HIDDEN) -> F32Array:
    """Normally distributed activations for ``n`` tokens."""
    return np.random.default_rng(n).normal(size=(n, size)).astype(np.float32)


def products(kernels: NativeKernels, format_name: str) -> str:
    """One line of the table: a format's read bandwidth, GEMV and GEMMs."""
    weight = random_weight((_ROWS, _HIDDEN), format_name)
    small = Weight("small", weight.format, (_ROWS // 16, _HIDDEN), weight.packed[: _ROWS // 16])
    read_s = best_seconds(lambda: kernels.read(weight.packed))
    one, x = activations(1), {n: activations(n) for n in _N_TOKENS}
    one_s = best_seconds(lambda: kernels.linear(one, weight))
    rates = [
        2 * n * small.shape[0] * _HIDDEN / best_seconds(functools.partial(kernels.linear, x[n], small))
        for n in _N_TOKENS
    ]
    return f"{format_name:8}{weight.nbytes / read_s / 1e9:8.1f}{weight.nbytes / one_s / 1e9:8.1f}" + "".join(
        f"{rate / 1e9:8.0f}" for rate in rates
    )


def moe(kernels: NativeKernels, n: int, format_name: str) -> str:
    """The routed experts of a layer of DeepSeek-V2-Lite."""
    shape = (_N_EXPERTS, _WIDTH, _HIDDEN)
    up = random_weight(shape, format_name)
    mlp = MLP(up, up, random_weight((_N_EXPERTS, _HIDDEN, _WIDTH), format_name))
    rng, x = np.random.default_rng(n), activations(n)
    chosen = np.stack([rng.permutation(_N_EXPERTS)[:_N_CHOSEN] for _ in range(n)]).astype(np.int32)
    routes = Routes(chosen, rng.random(chosen.shape).astype(np.float32))
    seconds = best_seconds(lambda: kernels.experts(x, routes, mlp))
    n_read = len(np.unique(chosen)) * 3 * up.nbytes / _N_EXPERTS
    operations = 2 * n * _N_CHOSEN * 3 * _WIDTH * _HIDDEN
    rates = f"{n_read / seconds / 1e9:8.1f} GB/s {operations / seconds / 1e9:6.0f} GOP/s"
    return f"experts, {n:3} tokens: {seconds * 1e3:8.2f} ms {rates}"


def attention(kernels: NativeKernels, storage: Storage) -> str:
    """Absorbed MLA of DeepSeek-V2-Lite: one token at depth 4096."""
    rng, layout = np.random.default_rng(0), EntryLayout(storage, _RANK + _ROPE, n_exact=_ROPE, group=_GROUP)
    entries = layout.view(layout.store(rng.normal(size=(_CONTEXT, layout.n)).astype(np.float32)))
    k_b, v_b = random_weight((_HEADS, _RANK, _HEAD), "Q4_0"), random_weight((_HEADS, _HEAD, _RANK), "Q4_0")
    q = activations(_HEADS, _HEAD + _ROPE)[None]
    seconds = best_seconds(lambda: kernels.mla_absorbed(q, entries, k_b, v_b, 0.07))
    rates = f"{_CONTEXT * layout.nbytes / seconds / 1e9:8.1f} GB/s {seconds / _CONTEXT * 1e9:6.0f} ns per KV entry"
    return f"absorbed MLA, {_CONTEXT} KV entries in {storage}: {seconds * 1e3:8.2f} ms {rates}"


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default=",".join(sorted(NATIVE_FORMATS)))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--isa")
    arguments = parser.parse_args()
    kernels = NativeKernels(arguments.threads, arguments.isa)
    print(f"{kernels.isa}, {kernels.n_threads} threads")
    print(f"{'format':8}{'read':>8}{'1 token':>8}" + "".join(f"{n:>8}" for n in _N_TOKENS) + "  GB/s, then GOP/s")
    for format_name in arguments.formats.split(","):
        print(products(kernels, format_name), flush=True)
    for n in (1, 8, 512):
        print(moe(kernels, n, arguments.formats.split(",")[0]), flush=True)
    for storage in STORAGES:
        print(attention(kernels, storage), flush=True)


if __name__ == "__main__":
    _main()
