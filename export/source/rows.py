"""Matrices of packed rows that are read a few rows at a time, and views that rearrange them.

A view reads nothing when it is created. :meth:`RowSource.read_into` reads only what the requested rows need, straight
into the caller's buffer, so a stack of 256 experts or a transposed projection streams in chunks of a few MiB.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from sprat.arrays import U8Array
from sprat.export.source.file import FileTensor
from sprat.quant.formats import BlockFormat, get_format

__all__ = [
    "AlternatingRows",
    "AsFloat32",
    "Columns",
    "HeadRows",
    "InterleavedHeads",
    "Measured",
    "RowRange",
    "RowSource",
    "RowView",
    "Stacked",
    "TransposedHeads",
    "in_one_format",
    "read_rows",
]

Measured: TypeAlias = Callable[[FileTensor], float]  # a tensor of a file -> an upper bound of its magnitudes


class RowSource(Protocol):
    """A matrix of weights, packed row by row in one block format."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    @property
    def n_columns(self) -> int:
        """Weights per row."""

    @property
    def format(self) -> BlockFormat:
        """The format of every row."""

    def read_into(self, start: int, out: U8Array) -> None:
        """Fill ``out``, ``(n, row_bytes)`` and contiguous, with the ``n`` rows from ``start`` on."""

    def bound(self, measured: Measured) -> float:
        """An upper bound of the weights' magnitudes, from the bound of each tensor of a file."""

    def stored(self) -> Iterator[FileTensor]:
        """The tensors of files that the rows are computed from."""


def read_rows(rows: RowSource, start: int, stop: int) -> U8Array:
    """Rows ``start`` to ``stop``, ``(stop - start, row_bytes)``, in a new array."""
    out = np.empty((stop - start, rows.format.row_bytes(rows.n_columns)), np.uint8)
    rows.read_into(start, out)
    return out


@dataclass(frozen=True, slots=True)
class RowView(ABC):
    """Base of the views of one matrix: size and format are the source's unless a subclass overrides them."""

    rows: RowSource

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.rows.n_rows

    @property
    def n_columns(self) -> int:
        """Weights per row."""
        return self.rows.n_columns

    @property
    def format(self) -> BlockFormat:
        """The format of every row."""
        return self.rows.format

    @abstractmethod
    def read_into(self, start: int, out: U8Array) -> None:
        """Fill ``out``, ``(n, row_bytes)`` and contiguous, with the ``n`` rows from ``start`` on."""

    def bound(self, measured: Measured) -> float:
        """The source's."""
        return self.rows.bound(measured)

    def stored(self) -> Iterator[FileTensor]:
        """The source's."""
        return self.rows.stored()


@dataclass(frozen=True, slots=True)
class AsFloat32(RowView):
    """The same weights dequantized to float32: single elements can be rearranged, elements of a block cannot."""

    @property
    def format(self) -> BlockFormat:
        """F32."""
        return get_format("F32")

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``start`` on, as float32 bytes."""
        packed = read_rows(self.rows, start, start + len(out))
        out[...] = self.rows.format.dequantize(packed).view(np.uint8)


@dataclass(frozen=True, slots=True)
class RowRange(RowView):
    """Rows ``first`` to ``first + height``: one expert of a stack."""

    first: int
    height: int

    @property
    def n_rows(self) -> int:
        """``height``."""
        return self.height

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``first + start`` on."""
        self.rows.read_into(self.first + start, out)


@dataclass(frozen=True, slots=True)
class Columns(RowView):
    """Some columns, of a format with one weight per block: the biases of some experts."""

    indices: Sequence[int]

    @property
    def n_columns(self) -> int:
        """Number of indices."""
        return len(self.indices)

    def read_into(self, start: int, out: U8Array) -> None:
        """The columns of the rows from ``start`` on."""
        rows = read_rows(self.rows, start, start + len(out)).view(f"u{self.format.block_bytes}")
        out[...] = np.ascontiguousarray(rows[:, self.indices]).view(np.uint8)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Base of several matrices of one shape and format read as one; a subclass defines the order of their rows."""

    parts: Sequence[RowSource]

    @property
    def n_rows(self) -> int:
        """Rows of all parts."""
        return len(self.parts) * self.parts[0].n_rows

    @property
    def n_columns(self) -> int:
        """Weights per row."""
        return self.parts[0].n_columns

    @property
    def format(self) -> BlockFormat:
        """The format of all parts."""
        return self.parts[0].format

    def bound(self, measured: Measured) -> float:
        """The largest of all parts."""
        return max(part.bound(measured) for part in self.parts)

    def stored(self) -> Iterator[FileTensor]:
        """The stored tensors of all parts."""
        return itertools.chain.from_iterable(part.stored() for part in self.parts)


@dataclass(frozen=True, slots=True)
class Stacked(_Parts):
    """Matrices of one shape and format, one after the other: the experts of a layer."""

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``start`` on, from every part that they span."""
        height = self.parts[0].n_rows
        while len(out):
            part, first = divmod(start, height)
            here = out[: height - first]
            self.parts[part].read_into(first, here)
            start, out = start + len(here), out[len(here) :]


@dataclass(frozen=True, slots=True)
class AlternatingRows(_Parts):
    """Row 0 of every part, then row 1 of every part, and so on: gate and up of the experts in ``QMoE``'s layout."""

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``start`` on, from all parts in turn."""
        n_parts, stop = len(self.parts), start + len(out)
        for index, part in enumerate(self.parts):
            first, end = ((row + n_parts - 1 - index) // n_parts for row in (start, stop))
            out[(index - start) % n_parts :: n_parts] = read_rows(part, first, end)


@dataclass(frozen=True, slots=True)
class _PerHead(RowView):
    """Base of the views that rearrange rows within an attention head: a whole head is read, then cut to ``out``."""

    n_heads: int

    @property
    def n_rows(self) -> int:
        """Rows of all heads."""
        return self.n_heads * self.head_rows

    @property
    @abstractmethod
    def head_rows(self) -> int:
        """Rows per head of the view."""

    @abstractmethod
    def head(self, index: int) -> U8Array:
        """One rearranged head, ``(head_rows, row_bytes)``."""

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``start`` on, from every head that they span."""
        while len(out):
            index, first = divmod(start, self.head_rows)
            here = self.head(index)[first : first + len(out)]
            out[: len(here)] = here
            start, out = start + len(here), out[len(here) :]

    def _source_rows(self, index: int, first: int, n_rows: int) -> U8Array:
        """``n_rows`` rows of head ``index`` of the source, from its row ``first`` on."""
        start = index * (self.rows.n_rows // self.n_heads) + first
        return read_rows(self.rows, start, start + n_rows)


@dataclass(frozen=True, slots=True)
class InterleavedHeads(_PerHead):
    """Queries and keys for RoPE on pairs (2i, 2i+1), from rows stored for pairs (i, i + head_dim / 2).

    Row ``2i + j`` of a head is row ``i + j * head_dim / 2`` of the source: llama.cpp's order for ``llama`` models.
    """

    @property
    def head_rows(self) -> int:
        """``head_dim``, as in the source."""
        return self.rows.n_rows // self.n_heads

    def head(self, index: int) -> U8Array:
        """One head, its two halves interleaved."""
        halves = self._source_rows(index, 0, self.head_rows).reshape(2, self.head_rows // 2, -1)
        return halves.swapaxes(0, 1).reshape(self.head_rows, -1)


@dataclass(frozen=True, slots=True)
class HeadRows(_PerHead):
    """Rows ``first`` to ``first + height`` of every head: MLA's ``v_b`` from ``kv_b_proj``."""

    first: int
    height: int

    @property
    def head_rows(self) -> int:
        """``height``."""
        return self.height

    def head(self, index: int) -> U8Array:
        """The selected rows of one head."""
        return self._source_rows(index, self.first, self.height)


@dataclass(frozen=True, slots=True)
class TransposedHeads(_PerHead):
    """The first ``width`` rows of every head, transposed: MLA's ``k_b`` from ``kv_b_proj``.

    The source's format holds one weight per block, so that single weights can be moved.
    """

    width: int

    @property
    def n_columns(self) -> int:
        """``width``."""
        return self.width

    @property
    def head_rows(self) -> int:
        """One row per column of the source."""
        return self.rows.n_columns

    def head(self, index: int) -> U8Array:
        """One head, transposed."""
        weights = self._source_rows(index, 0, self.width).view(f"u{self.format.block_bytes}")  # (width, n_columns)
        return np.ascontiguousarray(weights.T).view(np.uint8)


def in_one_format(parts: Sequence[RowSource], *, elementwise: bool = False) -> list[RowSource]:
    """``parts`` in a common format: unchanged when they share one, as float32 otherwise.

    Args:
        parts: matrices that will be read as one.
        elementwise: the result's elements are moved one by one, so formats with several weights per block are
            converted to float32 too.
    """
    formats = {part.format.name for part in parts}
    if len(formats) > 1 or (elementwise and parts[0].format.block_size > 1):
        return [AsFloat32(part) for part in parts]
    return list(parts)
