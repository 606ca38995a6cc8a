"""Dequantized copies of weights, kept within a memory limit."""

from __future__ import annotations

import math

import numpy as np

from sprat.arrays import F32Array
from sprat.runtime.weights import Weight

__all__ = ["DenseCache"]


class DenseCache:
    """Dequantizes weights and keeps the first ones that fit.

    Nothing is evicted. A model uses its weights in the same order for every token, so that LRU eviction would always
    drop the copy that is needed next.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._kept: dict[tuple[Weight, int | None], F32Array] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the copies kept."""
        return self._used_bytes

    def kept(self, weight: Weight, index: int | None = None) -> F32Array | None:
        """The copy that :meth:`find` kept, if it did."""
        return self._kept.get((weight, index))

    def find(self, weight: Weight, index: int | None = None) -> F32Array | None:
        """A float32 copy of ``weight``, or of expert ``index`` of a stacked one; ``None`` if it does not fit."""
        key = (weight, index)
        if (kept := self._kept.get(key)) is not None:
            return kept
        part = weight if index is None else weight[index]
        if part.format.name == "F32":
            return part.packed.view(np.float32)  # a view of the file: nothing to copy
        size = 4 * math.prod(part.shape)
        if self._used_bytes + size > self._limit_bytes:
            return None
        self._used_bytes += size
        self._kept[key] = part.dequantize()
        return self._kept[key]
