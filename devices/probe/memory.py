"""Memory bandwidth: reads of more bytes than the CPU's caches hold, with one thread to all threads."""

from __future__ import annotations

import mmap
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from sprat.native import core

__all__ = ["read_rates"]

_MAX_BYTES = 512 << 20
_MIN_BYTES = 32 << 20
_PARTS_PER_THREAD = 16
_SECONDS = 0.6  # per number of threads

_Bytes = npt.NDArray[np.uint8]
_Reader = Callable[[_Bytes], None]


def read_rates(
    n_threads: int, available_bytes: int, *, seconds: float | None = None, max_bytes: int | None = None
) -> dict[int, float]:
    """Bytes per second that 1, 2, ... ``n_threads`` threads read together; the median over passes.

    The native core reads like its products, several streams per thread; without it NumPy computes maxima.

    Args:
        n_threads: most threads; beyond four only powers of two and this number are measured.
        available_bytes: available memory, of which at most an eighth is used.
        seconds: per number of threads; 0.6 by default.
        max_bytes: most bytes to read per pass; 512 MiB by default.
    """
    size = min(max_bytes or _MAX_BYTES, max(_MIN_BYTES, available_bytes // 8)) // 4096 * 4096
    with mmap.mmap(-1, size) as memory:
        content = np.frombuffer(memory, np.uint8)
        content[:] = 1
        rates = {count: _read_rate(content, _reader(count), seconds or _SECONDS) for count in _thread_counts(n_threads)}
        del content  # the map cannot be closed while an array refers to it
    return rates


def _thread_counts(n_threads: int) -> list[int]:
    powers = [1 << power for power in range(n_threads.bit_length())]
    return sorted({*range(1, min(n_threads, 4) + 1), *powers, n_threads})


def _read_rate(content: _Bytes, read: _Reader, seconds: float) -> float:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end or not times:
        read(content)
        times.append(time.perf_counter() - start)
    return content.nbytes / statistics.median(times)


def _reader(n_threads: int) -> _Reader:
    kernels = getattr(core, "KernelSet", None)
    if core is None or not hasattr(kernels, "read"):  # no core, or one built from an older checkout
        return _numpy_reader(n_threads)
    read: _Reader = core.KernelSet(core.isa_names()[0], n_threads, cores=[], n_digits=1).read
    return read


def _numpy_reader(n_threads: int) -> _Reader:
    """Threads that compute the maximum of int32 values: wide loads, without the GIL."""

    def read(content: _Bytes) -> None:
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(np.max, np.array_split(content.view(np.int32), n_threads * _PARTS_PER_THREAD)))

    return read
