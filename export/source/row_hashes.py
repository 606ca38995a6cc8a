"""Whether an export rounds the weights that the first pass over the source hashed.

The pass (:mod:`~sprat.export.source.scan`) computes the SHA-256 that the manifest names; afterwards the weights are
read again, to be rounded. A change between the two shows in the size, times and inode of the file, unless a program set
the clock back. So each tensor has the sum of the hashes of its rows: of the pass, and again of all reads after it, in
whatever order views ask for rows.

The hash of a row is multilinear, with factors that are drawn for this process (Lemire and Kaser, Strongly universal
string hashing is fast, 2014, https://arxiv.org/abs/1202.4961). It takes a third of the time of SHA-256.
"""

from __future__ import annotations

import os
import threading
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sprat.arrays import U8Array

__all__ = ["SEGMENT_BYTES", "RowHashes", "hash_rows"]

U64Array: TypeAlias = npt.NDArray[np.uint64]

SEGMENT_BYTES = 1 << 14
"""Rows are hashed in pieces of this size, so that a long one need not be read at once."""

_FACTORS = np.frombuffer(os.urandom(2 * SEGMENT_BYTES), np.uint64)  # one for each word of 32 bits


def hash_rows(rows: U8Array, offset: int) -> U64Array:
    """A hash for each row of ``rows``, ``(n, nbytes)``, which also depends on where it is.

    Args:
        rows: contiguous.
        offset: where in the tensor the first of them begins, in bytes.
    """
    n_rows, nbytes = rows.shape
    starts = np.arange(n_rows, dtype=np.uint64) * np.uint64(nbytes) + np.uint64(offset)
    hashes = np.zeros(n_rows, np.uint64)
    for at in range(0, nbytes, SEGMENT_BYTES):
        piece = rows[:, at : at + SEGMENT_BYTES]
        if n_odd := piece.shape[1] % 4:
            piece = np.pad(piece, ((0, 0), (0, 4 - n_odd)))
        words = np.ascontiguousarray(piece).view(np.uint32)
        hashes += _mixed(words @ _FACTORS[: words.shape[1]], starts + np.uint64(at))
    return hashes


def _mixed(hashes: U64Array, positions: U64Array) -> U64Array:
    """SplitMix64's finalizer: without it, rows that swap places would have the same sum."""
    z = hashes + positions * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: U64Array = z ^ (z >> np.uint64(31))
    return mixed


class RowHashes:
    """The rows of one tensor that were read since the pass, compared with it when all were read.

    Holds nine bytes for each row of a tensor that was read in part.
    """

    __slots__ = ("_hashes", "_lock", "_seen", "_wanted")

    def __init__(self) -> None:
        self._wanted: int | None = None  # the pass has not come yet
        self._hashes: U64Array | None = None
        self._seen = np.zeros(0, bool)
        self._lock = threading.Lock()

    def expect(self, total: int) -> None:
        """Compare from now on with ``total``, the sum over all rows modulo 2^64."""
        with self._lock:
            self._wanted, self._hashes = total, None

    def are_same(self, start: int, rows: U8Array, n_rows: int) -> bool:
        """Take note of ``rows``, read from row ``start`` on; False if they show that the tensor changed.

        Args:
            start: of the ``n_rows`` rows of the tensor.
            rows: contiguous ``(n, row_bytes)``.
            n_rows: of the tensor.
        """
        if self._wanted is None or not rows.size:
            return True
        found, here = hash_rows(rows, start * rows.shape[1]), slice(start, start + len(rows))
        with self._lock:
            if self._hashes is None:
                self._hashes, self._seen = np.zeros(n_rows, np.uint64), np.zeros(n_rows, bool)
            if (self._seen[here] & (self._hashes[here] != found)).any():
                return False
            self._hashes[here], self._seen[here] = found, True
            if not self._seen.all():
                return True
            total, self._hashes = int(self._hashes.sum()), None
            return total == self._wanted
