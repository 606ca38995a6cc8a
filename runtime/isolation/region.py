"""Memory that both processes map: the tokens of a pass, and its logits."""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np

from sprat.arrays import F32Array, I32Array

__all__ = ["Region", "region_bytes"]

_TOKENS = 1 << 16  # of one pass: the most that `batch` allows
_LOGITS_BYTES = 1 << 20  # what is handed over at once; one row at least
_SEALS = 0x0001 | 0x0002 | 0x0004  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
_ADD_SEALS = 1033  # F_ADD_SEALS


def region_bytes(vocab_size: int) -> int:
    """Bytes of a region for a model with this vocabulary."""
    return 4 * _TOKENS + 4 * vocab_size * _n_rows(vocab_size)


def _n_rows(vocab_size: int) -> int:
    return max(1, _LOGITS_BYTES // (4 * vocab_size))


class Region:
    """A mapped region.

    Args:
        descriptor: of its memory; the caller closes it.
        vocab_size: logits of a row.

    Attributes:
        tokens: ids of the tokens of a pass.
        logits: rows of logits, ``(n, vocab_size)``.
    """

    def __init__(self, descriptor: int, vocab_size: int) -> None:
        mapped = mmap.mmap(descriptor, region_bytes(vocab_size))
        self.tokens: I32Array = np.frombuffer(mapped, np.int32, _TOKENS)
        self.logits: F32Array = np.frombuffer(mapped, np.float32, offset=4 * _TOKENS).reshape(-1, vocab_size)

    @staticmethod
    def create(vocab_size: int) -> int:
        """A descriptor of memory for a region, of a size that nobody can change: a map of it never fails."""
        descriptor = os.memfd_create("sprat-region", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, region_bytes(vocab_size))
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
        return descriptor
