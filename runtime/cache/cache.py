"""The base class of KV caches: length, capacity, truncation, saving and restoring.

A layer writes its KV entries of all new tokens before the next layer runs. The new tokens count only after
:meth:`Cache.advance`, so that a forward pass that fails leaves the cache unchanged.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np

from sprat.arrays import F32Array
from sprat.errors import ModelFileError, PromptError
from sprat.runtime.arch.attention import CachePlane
from sprat.runtime.cache.entries import EntryLayout, KVEntries, Storage, Stored, entry_layout

__all__ = ["Cache"]

_MAGIC = b"SPRATKV1"
_HEADER = struct.Struct("<8sIQ")
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

    def save(self) -> bytes:
        """The KV entries of all tokens as bytes, after a header that identifies the layout.

        ::

            magic (8 bytes) | size of the geometry (u32) | tokens (u64) | geometry | rows of each plane
        """
        geometry = self._geometry()
        rows = (np.ascontiguousarray(plane[:, :, : self._length]).tobytes() for plane in self._planes)
        return b"".join((_HEADER.pack(_MAGIC, len(geometry), self._length), geometry, *rows))

    def restore(self, saved: bytes) -> None:
        """Replace the tokens by those of another cache of the same model, from the bytes of its :meth:`save`.

        Raises:
            ModelFileError: the bytes are damaged, hold NaN or Inf, or are from a cache of another model or storage. The
                cache is as it was, as with every other error.
            PromptError: the tokens do not fit.
        """
        length, payload = self._parse_saved(saved)
        if length > self._capacity:
            raise PromptError(
                f"the saved cache holds {length} tokens, and this one has room for {self._capacity}: load the model "
                f"with a context of at least {length}, or process a shorter prompt"
            )
        rows = list(self._saved_rows(length, payload))
        for plane, saved_rows in zip(self._planes, rows, strict=True):
            plane[:, :, :length] = saved_rows
        self._length = length

    def _saved_rows(self, length: int, payload: memoryview) -> Iterator[Stored]:
        """The saved entries of each plane, a view of ``payload``, checked."""
        for plane, layout in zip(self._planes, self._layouts, strict=True):
            rows = np.frombuffer(payload, plane.dtype, plane[:, :, :length].size)
            payload = payload[rows.nbytes :]
            rows = rows.reshape(*plane.shape[:2], length, plane.shape[3])
            if not layout.is_finite(rows):
                raise ModelFileError("saved cache: damaged, it holds NaN or Inf; process the prompt again")
            yield rows

    def _parse_saved(self, saved: bytes) -> tuple[int, memoryview]:
        """Number of tokens and rows of a saved cache, checked against the layout of this one."""
        if len(saved) < _HEADER.size or not saved.startswith(_MAGIC):
            raise ModelFileError(f"saved cache: it does not begin with {_MAGIC!r}; process the prompt again")
        _, size, length = _HEADER.unpack_from(saved)
        geometry, payload = saved[_HEADER.size :][:size], memoryview(saved)[_HEADER.size + size :]
        if geometry != self._geometry():
            raise ModelFileError(
                f"saved cache: layout {geometry[:100]!r}, expected {self._geometry()!r}; process the prompt again"
            )
        if len(payload) != sum(plane[:, :, :1].nbytes for plane in self._planes) * length:
            raise ModelFileError(
                f"saved cache: damaged, {len(payload)} bytes of entries for {length} tokens; process the prompt again"
            )
        return length, payload

    def _geometry(self) -> bytes:
        planes = (f"{plane.shape[0]}x{plane.shape[1]}x{plane.shape[3]}" for plane in self._planes)
        return " ".join((type(self).__name__, self._layouts[0].storage, *planes)).encode()


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
