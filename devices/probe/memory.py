"""How fast memory is read: one thread to all of them, over more bytes than any cache holds."""

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

_MOST_BYTES = 512 << 20
_LEAST_BYTES = 32 << 20
_PARTS_PER_THREAD = 16
_SECONDS = 0.6  # for each number of threads

_Bytes = npt.NDArray[np.uint8]
_Reader = Callable[[_Bytes], None]


def read_rates(
    n_threads: int, available_bytes: int, *, seconds: float | None = None, most_bytes: int | None = None
) -> dict[int, float]:
    """Bytes per second that 1, 2, ... ``n_threads`` threads read together, the median pass of each.

    The native core reads as its products do, several streams per thread; without it NumPy looks for the largest number.

    Args:
        n_threads: the most threads; beyond four, only powers of two and the most are measured.
        available_bytes: free memory, of which at most an eighth is used.
        seconds: for each number of threads; less than the usual ones for a second look.
        most_bytes: to read, for the same.
    """
    size = min(most_bytes or _MOST_BYTES, max(_LEAST_BYTES, available_bytes // 8)) // 4096 * 4096
    with mmap.mmap(-1, size) as memory:
        content = np.frombuffer(memory, np.uint8)
        content[:] = 1
        rates = {count: _read_rate(content, _reader(count), seconds or _SECONDS) for count in _thread_counts(n_threads)}
        del content  # the map cannot be closed while an array looks at it
    return rates


def _thread_counts(n_threads: int) -> list[int]:
    doubling = [1 << power for power in range(n_threads.bit_length())]
    return sorted({*range(1, min(n_threads, 4) + 1), *doubling, n_threads})


def _read_rate(content: _Bytes, read: _Reader, seconds: float) -> float:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end or not taken:
        read(content)
        taken.append(time.perf_counter() - start)
    return content.nbytes / statistics.median(taken)


def _reader(n_threads: int) -> _Reader:
    kernels = getattr(core, "KernelSet", None)
    if core is None or not hasattr(kernels, "read"):  # none, or one that was built from an older checkout
        return _numpy_reader(n_threads)
    read: _Reader = core.KernelSet(core.isa_names()[0], n_threads, cores=[], n_digits=1).read
    return read


def _numpy_reader(n_threads: int) -> _Reader:
    """Threads that look for the largest 32-bit number: the widest loads, and no interpreter's lock."""

    def read(content: _Bytes) -> None:
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(np.max, np.array_split(content.view(np.int32), n_threads * _PARTS_PER_THREAD)))

    return read
