"""How fast memory is read: one thread to all of them, over more bytes than any cache holds."""

from __future__ import annotations

import mmap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["read_rates"]

_MOST_BYTES = 512 << 20
_LEAST_BYTES = 32 << 20
_PARTS_PER_THREAD = 16
_SECONDS = 0.6  # for each number of threads


def read_rates(n_threads: int, available_bytes: int) -> dict[int, float]:
    """Bytes per second that 1, 2, ... ``n_threads`` threads read together, the best pass of each.

    Each thread looks for the largest of its 32-bit numbers, which NumPy does with the widest loads of the processor and
    without the interpreter's lock.

    Args:
        n_threads: the most threads; beyond four, only powers of two and the most are measured.
        available_bytes: free memory, of which at most an eighth is used.
    """
    size = min(_MOST_BYTES, max(_LEAST_BYTES, available_bytes // 8)) // 4096 * 4096
    with mmap.mmap(-1, size) as memory:
        words = np.frombuffer(memory, np.int32)
        words[:] = 1
        rates = {count: _read_rate(words, count) for count in _thread_counts(n_threads)}
        del words  # the map cannot be closed while an array looks at it
    return rates


def _thread_counts(n_threads: int) -> list[int]:
    doubling = [1 << power for power in range(n_threads.bit_length())]
    return sorted({*range(1, min(n_threads, 4) + 1), *doubling, n_threads})


def _read_rate(words: np.ndarray[tuple[int], np.dtype[np.int32]], n_threads: int) -> float:
    parts = np.array_split(words, n_threads * _PARTS_PER_THREAD)
    best, end = float("inf"), time.perf_counter() + _SECONDS
    with ThreadPoolExecutor(n_threads) as pool:
        while (start := time.perf_counter()) < end:
            list(pool.map(np.max, parts))
            best = min(best, time.perf_counter() - start)
    return words.nbytes / best
