"""A tensor of a checkpoint under its canonical name, read whole or in chunks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.export.source.file import FileTensor
from sprat.export.source.fp8 import SCALE_SUFFIX
from sprat.export.source.rows import Measured, RowSource, Stacked, read_rows
from sprat.quant.formats import BlockFormat, get_format
from sprat.runtime.weights import Weight

__all__ = ["ComputedRow", "SourceTensor"]

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A canonical tensor and the source of its rows; nothing is read until it is requested.

    Attributes:
        name: canonical name, ``blk.0.attn_q.weight``.
        shape: in C order, ``(out, in)`` or ``(n_experts, out, in)``.
        rows: the weights as a matrix ``(prod(shape[:-1]), shape[-1])``.
    """

    name: str
    shape: tuple[int, ...]
    rows: RowSource

    @property
    def format(self) -> BlockFormat:
        """The block format of the chunks: the source's, unless a rearrangement required float32."""
        return self.rows.format

    def stored_size(self) -> tuple[str, int]:
        """The format of most stored weights, and their bytes with scales: a share of a tensor that is split."""
        stored = list(self.rows.stored())
        codes = [tensor for tensor in stored if not tensor.name.endswith(SCALE_SUFFIX)]
        n_weights = math.prod(self.shape)
        if not codes:
            return self.format.name, self.rows.n_rows * self.format.row_bytes(self.rows.n_columns)
        share = n_weights / sum(math.prod(tensor.shape) for tensor in codes)
        names = Counter(tensor.format.name for tensor in codes)
        return names.most_common(1)[0][0], round(share * sum(tensor.nbytes for tensor in stored))

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[U8Array]:
        """All rows in order, in chunks ``(n, row_bytes)``, each a new array.

        Args:
            chunk_bytes: upper bound of a chunk, except that a chunk has at least one row.
        """
        step = max(1, chunk_bytes // self.format.row_bytes(self.rows.n_columns))
        for start in range(0, self.rows.n_rows, step):
            yield read_rows(self.rows, start, min(start + step, self.rows.n_rows))

    def weight(self) -> Weight:
        """The tensor as a weight of a running model: a view of the mapped file if it is contiguous there, else a copy.

        An expert of a stack is read when it is indexed.
        """
        if isinstance(self.rows, Stacked) and len(self.shape) > 2:
            parts = [SourceTensor(f"{self.name}[{i}]", self.shape[1:], part) for i, part in enumerate(self.rows.parts)]
            return _StackedWeight(self, parts)
        return Weight(self.name, self.format, self.shape, _whole(self.rows).reshape(*self.shape[:-1], -1))


def _whole(rows: RowSource) -> U8Array:
    return rows.whole() if isinstance(rows, FileTensor) else read_rows(rows, 0, rows.n_rows)


class _StackedWeight(Weight):
    """A layer's experts as one weight; each is read when it is indexed, into memory that its caller frees.

    Views of a map would stay in the resident set while any part of the file is in use.
    """

    __slots__ = ("_experts",)
    _experts: Sequence[SourceTensor]

    def __init__(self, tensor: SourceTensor, experts: Sequence[SourceTensor]) -> None:
        set_once = object.__setattr__  # the base class is frozen, and ``packed`` is a property here
        set_once(self, "name", tensor.name)
        set_once(self, "format", tensor.format)
        set_once(self, "shape", tensor.shape)
        set_once(self, "_experts", experts)

    @property
    def packed(self) -> U8Array:
        """All experts in a new array, read now."""
        return np.stack([expert.weight().packed for expert in self._experts])

    def __getitem__(self, index: int) -> Weight:
        expert = self._experts[index]
        packed = read_rows(expert.rows, 0, expert.rows.n_rows)
        return Weight(expert.name, expert.format, expert.shape, packed)


class ComputedRow(msgspec.Struct, frozen=True, eq=False):
    """A vector computed from the config, which no file stores."""

    values: F32Array

    @property
    def n_rows(self) -> int:
        """One row."""
        return 1

    @property
    def n_columns(self) -> int:
        """Length of the vector."""
        return len(self.values)

    @property
    def format(self) -> BlockFormat:
        """F32."""
        return get_format("F32")

    def bound(self, measured: Measured) -> float:
        """The largest magnitude."""
        return float(np.abs(self.values).max(initial=0))

    def stored(self) -> Iterator[FileTensor]:
        """Nothing: the vector is computed."""
        return iter(())

    def read_into(self, start: int, out: U8Array) -> None:
        """The row, as float32 bytes."""
        out[...] = self.values.view(np.uint8)
