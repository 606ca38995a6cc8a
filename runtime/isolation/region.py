"""Memory that both processes map: the tokens of a pass, and its logits."""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref

import numpy as np

from sprat.arrays import F32Array, I32Array

__all__ = ["SHARED", "Region", "region_bytes"]

SHARED = -1  # instead of the index of a lent row: the rows for all

_TOKENS = 1 << 16  # of one pass: the most that `batch` allows
_SHARED_BYTES = 1 << 20  # of logits that are handed over at once; one row at least
_N_LENT = 2  # one for the token that is sampled, one for the next
_SEALS = 0x0001 | 0x0002 | 0x0004  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
_ADD_SEALS = 1033  # F_ADD_SEALS


def region_bytes(vocab_size: int) -> int:
    """Bytes of a region for a model with this vocabulary."""
    return 4 * _TOKENS + 4 * vocab_size * (_N_LENT + _n_shared(vocab_size))


def _n_shared(vocab_size: int) -> int:
    return max(1, _SHARED_BYTES // (4 * vocab_size))


class Region:
    """A mapped region.

    Args:
        descriptor: of its memory; the caller closes it.
        vocab_size: logits of a row.

    Attributes:
        tokens: ids of the tokens of a pass.
        shared: rows of logits, which are copied out, ``(n, vocab_size)``.
    """

    def __init__(self, descriptor: int, vocab_size: int) -> None:
        self._mapped = mmap.mmap(descriptor, region_bytes(vocab_size))
        self._vocab_size = vocab_size
        self.tokens: I32Array = np.frombuffer(self._mapped, np.int32, _TOKENS)
        self.shared: F32Array = self._rows(_N_LENT, _n_shared(vocab_size)).reshape(-1, vocab_size)
        self._users: list[weakref.ref[F32Array] | None] = [None] * _N_LENT

    @staticmethod
    def create(vocab_size: int) -> int:
        """A descriptor of memory for a region, of a size that nobody can change: a map of it never fails."""
        descriptor = os.memfd_create("sprat-region", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, region_bytes(vocab_size))
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
        return descriptor

    def unused_row(self) -> int:
        """The index of a free row; ``SHARED`` if all are in use."""
        for index, user in enumerate(self._users):
            if user is None or user() is None:
                return index
        return SHARED

    def lend(self, index: int) -> F32Array:
        """The row ``(vocab_size,)``, which is in use while this array, or a view of it, exists."""
        # Each time a new array: views of it keep it, while views of one array for all would keep that one.
        row = self.row(index)
        self._users[index] = weakref.ref(row)
        return row

    def row(self, index: int) -> F32Array:
        """Row ``index``, to be written."""
        return self._rows(index, 1)

    def _rows(self, first: int, n: int) -> F32Array:
        offset = 4 * (_TOKENS + first * self._vocab_size)
        return np.frombuffer(self._mapped, np.float32, n * self._vocab_size, offset)
