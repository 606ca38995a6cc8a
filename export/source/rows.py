"""Rows of packed weights that can be read a few at a time, and the rearrangements between two conventions.

Each class is a view: nothing is read when it is made, and :meth:`Rows.read_into` touches only what the wanted rows
need and puts them where the caller wants them. So a stack of 256 experts or a transposed projection streams through a
chunk of a few MiB.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sprat.arrays import U8Array
from sprat.quant.formats import BlockFormat, get_format

__all__ = [
    "Alternating",
    "AsFloat32",
    "HeadRows",
    "InterleavedHeads",
    "Rows",
    "Stacked",
    "TransposedHeads",
    "alike",
    "read_rows",
]


class Rows(Protocol):
    """A matrix of weights, packed row by row in one format."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    @property
    def n_columns(self) -> int:
        """Weights in a row."""

    @property
    def format(self) -> BlockFormat:
        """The format of every row."""

    def read_into(self, start: int, out: U8Array) -> None:
        """Fill ``out``, ``(n, row_bytes)`` and contiguous, with ``n`` rows from ``start`` on."""


def read_rows(rows: Rows, start: int, stop: int) -> U8Array:
    """Rows ``start`` to ``stop``, ``(stop - start, row_bytes)``, in memory of their own."""
    out = np.empty((stop - start, rows.format.row_bytes(rows.n_columns)), np.uint8)
    rows.read_into(start, out)
    return out


@dataclass(frozen=True, slots=True)
class AsFloat32:
    """The same weights, dequantized: blocks cannot be transposed, floats can."""

    rows: Rows

    @property
    def n_rows(self) -> int:
        """As in the source."""
        return self.rows.n_rows

    @property
    def n_columns(self) -> int:
        """As in the source."""
        return self.rows.n_columns

    @property
    def format(self) -> BlockFormat:
        """F32."""
        return get_format("F32")

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``start`` on, as float32 bytes."""
        packed = read_rows(self.rows, start, start + len(out))
        out[...] = self.rows.format.dequantize(packed).view(np.uint8)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Matrices of one shape and format as one; in which order their rows come, a subclass says."""

    parts: Sequence[Rows]

    @property
    def n_rows(self) -> int:
        """Rows of all parts."""
        return len(self.parts) * self.parts[0].n_rows

    @property
    def n_columns(self) -> int:
        """Weights in a row."""
        return self.parts[0].n_columns

    @property
    def format(self) -> BlockFormat:
        """The format of all parts."""
        return self.parts[0].format


@dataclass(frozen=True, slots=True)
class Stacked(_Parts):
    """Matrices of one shape and format, one below the other: the experts of a layer."""

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``start`` on, out of as many parts as they span."""
        height = self.parts[0].n_rows
        while len(out):
            part, first = divmod(start, height)
            here = out[: height - first]
            self.parts[part].read_into(first, here)
            start, out = start + len(here), out[len(here) :]


@dataclass(frozen=True, slots=True)
class Alternating(_Parts):
    """The first rows of all parts, then their second rows, and so on: an expert's gate and up, as ``QMoE`` has them."""

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``start`` on, out of all parts by turns."""
        n_parts, stop = len(self.parts), start + len(out)
        for number, part in enumerate(self.parts):
            first, end = ((place + n_parts - 1 - number) // n_parts for place in (start, stop))
            out[(number - start) % n_parts :: n_parts] = read_rows(part, first, end)


@dataclass(frozen=True, slots=True)
class _PerHead(ABC):
    """Base of the rearrangements inside a head: a whole head is read, and the wanted rows cut out."""

    rows: Rows
    n_heads: int

    @property
    def n_rows(self) -> int:
        """Rows of all heads."""
        return self.n_heads * self.head_rows

    @property
    def n_columns(self) -> int:
        """As in the source."""
        return self.rows.n_columns

    @property
    def format(self) -> BlockFormat:
        """As in the source."""
        return self.rows.format

    @property
    @abstractmethod
    def head_rows(self) -> int:
        """Rows that a head has afterwards."""

    @abstractmethod
    def head(self, number: int) -> U8Array:
        """One rearranged head, ``(head_rows, row_bytes)``."""

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``start`` on, out of as many heads as they span."""
        while len(out):
            number, first = divmod(start, self.head_rows)
            here = self.head(number)[first : first + len(out)]
            out[: len(here)] = here
            start, out = start + len(here), out[len(here) :]

    def _source(self, number: int, first: int, n_rows: int) -> U8Array:
        """``n_rows`` rows of the source's head ``number``, from its row ``first`` on."""
        start = number * (self.rows.n_rows // self.n_heads) + first
        return read_rows(self.rows, start, start + n_rows)


@dataclass(frozen=True, slots=True)
class InterleavedHeads(_PerHead):
    """Queries and keys for rotary pairs (2i, 2i+1), from rows stored for pairs (i, i + head_dim / 2).

    Row ``2i + j`` of a head is row ``i + j * head_dim / 2`` of the source: llama.cpp's order for its llama models.
    """

    @property
    def head_rows(self) -> int:
        """As in the source: ``head_dim``."""
        return self.rows.n_rows // self.n_heads

    def head(self, number: int) -> U8Array:
        """One head, its halves interleaved."""
        halves = self._source(number, 0, self.head_rows).reshape(2, self.head_rows // 2, -1)
        return halves.swapaxes(0, 1).reshape(self.head_rows, -1)


@dataclass(frozen=True, slots=True)
class HeadRows(_PerHead):
    """The same ``height`` rows of every head, from its row ``first`` on: MLA's ``v_b`` out of ``kv_b_proj``."""

    first: int
    height: int

    @property
    def head_rows(self) -> int:
        """``height``."""
        return self.height

    def head(self, number: int) -> U8Array:
        """The rows of one head."""
        return self._source(number, self.first, self.height)


@dataclass(frozen=True, slots=True)
class TransposedHeads(_PerHead):
    """The first ``width`` rows of every head, transposed: MLA's ``k_b`` out of ``kv_b_proj``.

    The format holds one weight per block, so that weights can change their places.
    """

    width: int

    @property
    def n_columns(self) -> int:
        """``width``."""
        return self.width

    @property
    def head_rows(self) -> int:
        """One row for each column of the source."""
        return self.rows.n_columns

    def head(self, number: int) -> U8Array:
        """One head, transposed."""
        weights = self._source(number, 0, self.width).view(f"u{self.format.block_bytes}")  # (width, n_columns)
        return np.ascontiguousarray(weights.T).view(np.uint8)


def alike(parts: Sequence[Rows], *, splittable: bool = False) -> list[Rows]:
    """``parts`` in one format: unchanged when they share one, as float32 otherwise.

    Args:
        parts: what shall be put together.
        splittable: also turn formats of several weights per block into float32.
    """
    shared = {part.format.name for part in parts}
    if len(shared) > 1 or (splittable and parts[0].format.block_size > 1):
        return [AsFloat32(part) for part in parts]
    return list(parts)
