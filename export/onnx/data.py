"""The layout of ``model.onnx.data``, and the bytes of its weights.

A float weight is one array; a weight in a group format is two or three: codes, scales and, if asymmetric, zero points.
Each array begins on a multiple of 4096 bytes, so that a runtime can map it::

    token_embd codes | padding | token_embd scales | padding | blk.0.attn_norm | padding | blk.0.attn_q codes | ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from sprat.alignment import ceil_div, round_up
from sprat.arrays import U8Array
from sprat.export.source.repack import repack
from sprat.export.source.tensor import SourceTensor
from sprat.export.write.layout import PAGE_BYTES, PlacedTensor
from sprat.quant.formats import BlockFormat
from sprat.quant.formats.groups import GroupFormat

__all__ = ["DataFile", "OnnxWeight", "Region"]


@dataclass(frozen=True, slots=True)
class Region:
    """The bytes of one array, relative to its weight or to the file."""

    begin: int
    nbytes: int

    def moved(self, by: int) -> Region:
        """The region with ``by`` added to its offset."""
        return Region(self.begin + by, self.nbytes)

    def part(self, index: int, n_parts: int) -> Region:
        """One of ``n_parts`` equal parts: an expert of a stack."""
        return Region(self.begin + index * (self.nbytes // n_parts), self.nbytes // n_parts)


@dataclass(frozen=True, slots=True, eq=False)
class OnnxWeight:
    """A weight and how it is stored.

    Attributes:
        source: the weight, its rows in stored order.
        format: the stored format.
        signed: for ONNX's integer types: codes in two's complement, 4-bit zero points packed without padding between
            rows. Contrib operators take unsigned codes and zero points padded to bytes per row.
    """

    source: SourceTensor
    format: BlockFormat
    signed: bool = False

    @property
    def name(self) -> str:
        """Canonical name."""
        return self.source.name

    @property
    def bits(self) -> int:
        """Bits per code, without scales."""
        return self.format.bits if isinstance(self.format, GroupFormat) else 8 * self.format.block_bytes

    @property
    def regions(self) -> tuple[Region, ...]:
        """Floats; or codes, scales and, if asymmetric, zero points. Each region begins on a page."""
        regions: list[Region] = []
        for nbytes in self._sizes():
            begin = regions[-1].begin + round_up(regions[-1].nbytes, PAGE_BYTES) if regions else 0
            regions.append(Region(begin, nbytes))
        return tuple(regions)

    @property
    def nbytes(self) -> int:
        """From the start of the first array to the end of the last."""
        last = self.regions[-1]
        return last.begin + last.nbytes

    def chunks(self) -> Iterator[U8Array]:
        """All bytes in order; scales and zero points are buffered until the codes are done."""
        if not isinstance(self.format, GroupFormat):
            return repack(self.source, self.format)
        if self.format.ggml_format is None:
            return self._fields(repack(self.source, self.format), self.format)
        return self._fields(map(self.format.from_ggml, repack(self.source, self.format.ggml_format)), self.format)

    def _sizes(self) -> list[int]:
        n_rows, n_columns = self.source.rows.n_rows, self.source.rows.n_columns
        if not isinstance(self.format, GroupFormat):
            return [n_rows * self.format.row_bytes(n_columns)]
        n_blocks = n_columns // self.format.block_size
        sizes = [n_rows * n_columns * self.format.bits // 8, 2 * n_rows * n_blocks]
        return sizes if self.format.symmetric else [*sizes, self._zeros_bytes(n_rows, n_blocks, self.format.bits)]

    def _zeros_bytes(self, n_rows: int, n_blocks: int, bits: int) -> int:
        return ceil_div(n_rows * n_blocks * bits, 8) if self.signed else n_rows * ceil_div(n_blocks * bits, 8)

    def _fields(self, packed: Iterable[U8Array], format: GroupFormat) -> Iterator[U8Array]:
        n_rows, n_blocks = self.source.rows.n_rows, self.source.rows.n_columns // format.block_size
        fields = np.empty((n_rows, n_blocks, format.codes_start), np.uint8)  # scales and, if asymmetric, zero points
        row = 0
        for chunk in packed:
            blocks = chunk.reshape(len(chunk), n_blocks, format.block_bytes)
            yield self._codes(blocks[..., format.codes_start :], format)
            fields[row : row + len(chunk)] = blocks[..., : format.codes_start]
            row += len(chunk)
        regions = self.regions
        yield from _padded(regions[0], regions[1], fields[..., :2])
        if not format.symmetric:
            yield from _padded(regions[1], regions[2], self._packed_zeros(fields[..., 2], format.bits))

    def _codes(self, codes: U8Array, format: GroupFormat) -> U8Array:
        out = codes.copy()
        if self.signed and format.symmetric:
            out ^= np.uint8({4: 0x88, 8: 0x80}[format.bits])
        return out

    def _packed_zeros(self, zeros: U8Array, bits: int) -> U8Array:
        """Zero points ``(rows, blocks)``, two 4-bit ones per byte."""
        if bits == 8:
            return zeros
        rows = zeros.reshape(1, -1) if self.signed else zeros
        even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
        return even[:, 0::2] | even[:, 1::2] << np.uint8(4)


@dataclass(slots=True)
class DataFile:
    """The layout of ``model.onnx.data``; it grows while the graph is built."""

    tensors: list[PlacedTensor[OnnxWeight]] = field(default_factory=list)
    header: bytes = b""

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return self.tensors[-1].end if self.tensors else 0

    def place(self, weight: OnnxWeight) -> tuple[Region, ...]:
        """Append ``weight``; returns the regions of its arrays in the file."""
        begin = self.nbytes
        self.tensors.append(PlacedTensor(weight, begin, begin + round_up(weight.nbytes, PAGE_BYTES)))
        return tuple(region.moved(begin) for region in weight.regions)

    def digest(self) -> str:
        """SHA-256 of names, formats and offsets."""
        lines = [f"{placed.tensor.name} {placed.tensor.format} {placed.begin} {placed.end}" for placed in self.tensors]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _padded(before: Region, region: Region, array: U8Array) -> Iterator[U8Array]:
    yield np.zeros(region.begin - before.begin - before.nbytes, np.uint8)
    yield np.ascontiguousarray(array).reshape(-1)
