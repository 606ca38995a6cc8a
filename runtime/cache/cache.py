"""The base class of KV caches: length, capacity, truncation, and rows that move between caches.

A layer writes its KV entries of all new tokens before the next layer runs. The new tokens count only after
:meth:`Cache.advance`, so that a forward pass that fails leaves the cache unchanged.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import numpy as np

from sprat.arrays import F32Array
from sprat.errors import PromptError
from sprat.runtime.arch.attention import CachePlane
from sprat.runtime.cache.entries import EntryLayout, KVEntries, Storage, Stored, entry_layout

__all__ = ["Cache", "Rows"]

Rows: TypeAlias = tuple[Stored, ...]
"""The KV entries of consecutive tokens: of each plane ``(n_layers, heads, tokens, width)``."""

_HUGE_PAGE_BYTES = 2 << 20


class Cache:
    """KV entries of ``n_layers`` layers for up to ``capacity`` tokens.

    Args:
        planes: the arrays that a layer caches of each token; the rows of one head are contiguous, for attention.
        n_layers: layers of the model.
        capacity: maximum number of tokens.
        storage: element type.
    """

    def __init__(self, planes: Sequence[CachePlane], n_layers: int, capacity: int, storage: Storage = "f32") -> None:
        self._layouts = [entry_layout(plane, storage) for plane in planes]
        self._planes = [
            _unwritten((n_layers, plane.n_heads, capacity, layout.width), layout)
            for plane, layout in zip(planes, self._layouts, strict=True)
        ]
        self._capacity = capacity
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._length

    @property
    def capacity(self) -> int:
        """Maximum number of tokens."""
        return self._capacity

    @property
    def nbytes(self) -> int:
        """Bytes allocated; the operating system provides a page when it is first written."""
        return sum(plane.nbytes for plane in self._planes)

    def plane(self, index: int) -> Stored:
        """One array of all layers, ``(n_layers, heads, capacity, width)``, for kernels that write the entries."""
        return self._planes[index]

    def reserve(self, n_tokens: int) -> None:
        """Check that ``n_tokens`` more fit into the capacity.

        Raises:
            PromptError: they do not.
        """
        if self._length + n_tokens > self._capacity:
            raise PromptError(
                f"the cache holds {self._length} of {self._capacity} tokens and {n_tokens} more do not fit: "
                "shorten the prompt or load the model with a larger context"
            )

    def advance(self, n_tokens: int) -> None:
        """Add ``n_tokens``, which every layer has written, to the length."""
        self.reserve(n_tokens)
        self._length += n_tokens

    def truncate(self, length: int) -> None:
        """Remove every token from position ``length`` on.

        Raises:
            PromptError: the cache has fewer tokens.
        """
        if not 0 <= length <= self._length:
            raise PromptError(f"the cache holds {self._length} tokens and cannot be truncated to {length}")
        self._length = length

    def _write(self, plane: int, layer: int, rows: F32Array) -> KVEntries:
        """Store ``rows (heads, n, elements)`` of new tokens; returns all rows, ``(heads, length + n, elements)``."""
        end = self._length + rows.shape[1]
        layout, stored = self._layouts[plane], self._planes[plane][layer]
        stored[:, self._length : end] = layout.store(rows)
        return layout.view(stored[:, :end])

    @property
    def bytes_per_token(self) -> int:
        """Bytes of a token's entries in all layers."""
        return sum(plane[:, :, :1].nbytes for plane in self._planes)

    @property
    def geometry(self) -> str:
        """Kind, storage and dimensions: caches with the same have interchangeable rows."""
        planes = (f"{plane.shape[0]}x{plane.shape[1]}x{plane.shape[3]}" for plane in self._planes)
        return " ".join((type(self).__name__, self._layouts[0].storage, *planes))

    def rows(self, start: int, stop: int) -> Rows:
        """A copy of the entries of tokens ``start`` to ``stop - 1``."""
        return tuple(plane.copy() for plane in self.views(start, stop))

    def views(self, start: int, stop: int) -> Rows:
        """As :meth:`rows`, without a copy: they change with the cache."""
        assert 0 <= start <= stop <= self._length, "the cache does not hold these tokens"
        return tuple(plane[:, :, start:stop] for plane in self._planes)

    def empty_rows(self, n: int) -> Rows:
        """Arrays for the entries of ``n`` tokens, to be filled with those of another cache of this geometry."""
        return tuple(np.empty((*plane.shape[:2], n, plane.shape[3]), plane.dtype) for plane in self._planes)

    def append_rows(self, rows: Rows, after_layer: Callable[[], object] = lambda: None) -> None:
        """Add tokens whose entries are those of another cache of this geometry.

        Args:
            rows: of the tokens.
            after_layer: called whenever the rows of a layer have been copied from one plane.

        Raises:
            PromptError: they do not fit into the capacity.
        """
        n = rows[0].shape[2]
        self.reserve(n)
        for plane, new in zip(self._planes, rows, strict=True):
            for layer, stored in enumerate(plane):
                stored[:, self._length : self._length + n] = new[layer]
                after_layer()
        self._length += n

    def is_finite(self, plane: int, rows: Stored) -> bool:
        """Whether ``rows (..., width)`` of a plane hold neither NaN nor Inf."""
        return self._layouts[plane].is_finite(rows)


def _unwritten(shape: tuple[int, ...], layout: EntryLayout) -> Stored:
    """Zeros, whose pages are allocated when they are first written.

    NumPy requests huge pages. If the rows of a head are smaller than a huge page, the first token, which writes a row
    of every head, would allocate the whole cache; huge pages are then turned off.
    """
    n_bytes = math.prod(shape) * layout.dtype.itemsize
    if shape[-2] * layout.nbytes >= _HUGE_PAGE_BYTES or not n_bytes:
        return np.zeros(shape, layout.dtype)
    pages = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # not Linux, or a kernel without huge pages
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, layout.dtype).reshape(shape)
