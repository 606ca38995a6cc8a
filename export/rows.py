"""Rows of packed weights that can be read a few at a time, and the rearrangements between two conventions.

Each class is a view: nothing is read when it is made, and :meth:`Rows.read` touches only what the wanted rows need. So
a stack of 256 experts or a transposed projection streams through a chunk of a few MiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sprat.quant.formats import BlockFormat, get_format
from sprat.quant.formats.block import U8Array

__all__ = ["AsFloat32", "HeadRows", "InterleavedHeads", "Rows", "Stacked", "TransposedHeads", "alike"]


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

    def read(self, start: int, stop: int) -> U8Array:
        """Rows ``start`` to ``stop``, ``(stop - start, row_bytes)``."""


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

    def read(self, start: int, stop: int) -> U8Array:
        """Rows ``start`` to ``stop`` as float32 bytes."""
        return self.rows.format.dequantize(self.rows.read(start, stop)).view(np.uint8)


@dataclass(frozen=True, slots=True)
class Stacked:
    """Matrices of one shape and format, one below the other: the experts of a layer."""

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

    def read(self, start: int, stop: int) -> U8Array:
        """Rows ``start`` to ``stop``, over as many parts as they span."""
        height = self.parts[0].n_rows
        spans = [
            self.parts[part].read(max(start - part * height, 0), min(stop - part * height, height))
            for part in range(start // height, -(-stop // height))
        ]
        return spans[0] if len(spans) == 1 else np.concatenate(spans)


@dataclass(frozen=True, slots=True)
class _PerHead:
    """Base of the rearrangements inside one head: a whole number of heads is read, and the wanted rows cut out."""

    rows: Rows
    n_heads: int

    @property
    def format(self) -> BlockFormat:
        """As in the source."""
        return self.rows.format

    def _head(self, head: int, first: int, n_rows: int) -> U8Array:
        """``n_rows`` rows of the source's ``head``, from its row ``first`` on."""
        start = head * (self.rows.n_rows // self.n_heads) + first
        return self.rows.read(start, start + n_rows)


def _cut(heads: Iterator[U8Array], start: int, stop: int, height: int) -> U8Array:
    """Rows ``start`` to ``stop`` of ``heads``, which begin with the one that holds row ``start``."""
    skipped = start // height * height
    return np.concatenate(list(heads))[start - skipped : stop - skipped]


@dataclass(frozen=True, slots=True)
class InterleavedHeads(_PerHead):
    """Queries and keys for rotary pairs (2i, 2i+1), from rows stored for pairs (i, i + head_dim / 2).

    Row ``2i + j`` of a head becomes row ``i + j * head_dim / 2`` of the source: llama.cpp's order for its llama
    architecture.
    """

    @property
    def n_rows(self) -> int:
        """As in the source."""
        return self.rows.n_rows

    @property
    def n_columns(self) -> int:
        """As in the source."""
        return self.rows.n_columns

    def read(self, start: int, stop: int) -> U8Array:
        """Rows ``start`` to ``stop`` in the new order."""
        height = self.n_rows // self.n_heads
        heads = (
            self._head(head, 0, height).reshape(2, height // 2, -1).swapaxes(0, 1).reshape(height, -1)
            for head in range(start // height, -(-stop // height))
        )
        return _cut(heads, start, stop, height)


@dataclass(frozen=True, slots=True)
class HeadRows(_PerHead):
    """The same ``height`` rows of every head, from its row ``first`` on: MLA's ``v_b`` out of ``kv_b_proj``."""

    first: int
    height: int

    @property
    def n_rows(self) -> int:
        """``n_heads * height``."""
        return self.n_heads * self.height

    @property
    def n_columns(self) -> int:
        """As in the source."""
        return self.rows.n_columns

    def read(self, start: int, stop: int) -> U8Array:
        """Rows ``start`` to ``stop`` of what is left."""
        touched = range(start // self.height, -(-stop // self.height))
        heads = (self._head(head, self.first, self.height) for head in touched)
        return _cut(heads, start, stop, self.height)


@dataclass(frozen=True, slots=True)
class TransposedHeads(_PerHead):
    """The first ``width`` rows of every head, transposed: MLA's ``k_b`` out of ``kv_b_proj``.

    The format holds one weight per block, so that weights can change their places.
    """

    width: int

    @property
    def n_rows(self) -> int:
        """One row for each column of the source, in every head."""
        return self.n_heads * self.rows.n_columns

    @property
    def n_columns(self) -> int:
        """``width``."""
        return self.width

    def read(self, start: int, stop: int) -> U8Array:
        """Rows ``start`` to ``stop`` of the transposed heads."""
        height = self.rows.n_columns
        heads = (self._transposed(head) for head in range(start // height, -(-stop // height)))
        return _cut(heads, start, stop, height)

    def _transposed(self, head: int) -> U8Array:
        weights = self._head(head, 0, self.width).view(f"u{self.format.block_bytes}")  # (width, n_columns)
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
