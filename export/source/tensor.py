"""One tensor of a checkpoint under its canonical name, whole or chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.export.source.rows import Rows, Stacked, read_rows
from sprat.export.source.stored import StoredTensor
from sprat.quant.formats import BlockFormat, get_format
from sprat.runtime.weights import Weight

__all__ = ["ComputedRow", "SourceTensor"]

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A canonical tensor and the rows that it is made of; nothing is read before it is asked for.

    Attributes:
        name: canonical, ``blk.0.attn_q.weight``.
        shape: in C order, ``(out, in)`` or ``(n_experts, out, in)``.
        rows: the same weights as a matrix of ``(prod(shape[:-1]), shape[-1])``.
    """

    name: str
    shape: tuple[int, ...]
    rows: Rows

    @property
    def format(self) -> BlockFormat:
        """What the chunks are packed in: the source's own format where it could be kept."""
        return self.rows.format

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[U8Array]:
        """All rows in order, ``(n, row_bytes)`` at a time, each in memory of its own.

        Args:
            chunk_bytes: upper bound of a chunk; at least one row is yielded.
        """
        step = max(1, chunk_bytes // self.format.row_bytes(self.rows.n_columns))
        for start in range(0, self.rows.n_rows, step):
            yield read_rows(self.rows, start, min(start + step, self.rows.n_rows))

    def weight(self) -> Weight:
        """The tensor for a run of the model: a view where it lies in its file in one piece, read now where it does not.

        Of a stack of experts, each is read when it is asked for.
        """
        if isinstance(self.rows, Stacked):
            parts = [SourceTensor(f"{self.name}[{i}]", self.shape[1:], part) for i, part in enumerate(self.rows.parts)]
            return _StackedWeight(self, parts)
        return Weight(self.name, self.format, self.shape, _whole(self.rows).reshape(*self.shape[:-1], -1))


def _whole(rows: Rows) -> U8Array:
    return rows.whole() if isinstance(rows, StoredTensor) else read_rows(rows, 0, rows.n_rows)


class _StackedWeight(Weight):
    """Experts that lie apart, as one weight; each is found when it is asked for."""

    __slots__ = ("_experts",)
    _experts: Sequence[SourceTensor]

    def __init__(self, tensor: SourceTensor, experts: Sequence[SourceTensor]) -> None:
        set_once = object.__setattr__  # the base is frozen, and its ``packed`` is none of the fields here
        set_once(self, "name", tensor.name)
        set_once(self, "format", tensor.format)
        set_once(self, "shape", tensor.shape)
        set_once(self, "_experts", experts)

    @property
    def packed(self) -> U8Array:
        """All experts in memory of their own, read now."""
        return np.stack([expert.weight().packed for expert in self._experts])

    def __getitem__(self, index: int) -> Weight:
        return self._experts[index].weight()


@dataclass(frozen=True, slots=True, eq=False)
class ComputedRow:
    """A vector that no file holds: it follows from the config."""

    values: F32Array

    @property
    def n_rows(self) -> int:
        """One."""
        return 1

    @property
    def n_columns(self) -> int:
        """Length of the vector."""
        return len(self.values)

    @property
    def format(self) -> BlockFormat:
        """F32."""
        return get_format("F32")

    def read_into(self, start: int, out: U8Array) -> None:
        """The row, as float32 bytes."""
        out[...] = self.values.view(np.uint8)
