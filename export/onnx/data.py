"""Where every weight lies in ``model.onnx.data``, and its bytes.

A weight of floats is one array, one in a group format two or three: codes, scales and perhaps zero points. The arrays
follow each other, each on a multiple of 4096 bytes, so that a runtime can map every one of them::

    token_embd codes | zeros | token_embd scales | zeros | blk.0.attn_norm | zeros | blk.0.attn_q codes | ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from sprat.arrays import U8Array
from sprat.export.source.repack import repack
from sprat.export.source.tensor import SourceTensor
from sprat.export.write.layout import PlacedTensor
from sprat.quant.formats import BlockFormat
from sprat.quant.formats.groups import GroupFormat

__all__ = ["DataFile", "Region", "StoredWeight"]

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Region:
    """One array's bytes, counted from the start of its weight; later from the start of the file."""

    begin: int
    nbytes: int

    def moved(self, by: int) -> Region:
        """The same bytes, counted from further ahead."""
        return Region(self.begin + by, self.nbytes)

    def part(self, number: int, n_parts: int) -> Region:
        """One of ``n_parts`` of the same size: an expert of a stack."""
        return Region(self.begin + number * (self.nbytes // n_parts), self.nbytes // n_parts)


@dataclass(frozen=True, slots=True, eq=False)
class StoredWeight:
    """A weight and what it is stored as.

    Attributes:
        source: its rows, in the order in which they are stored.
        format: what they become.
        signed: codes in two's complement, and zero points of four bits packed without gaps between rows: as ONNX's own
            types are, where the contributed operators want bytes.
    """

    source: SourceTensor
    format: BlockFormat
    signed: bool = False

    @property
    def name(self) -> str:
        """Of the weight."""
        return self.source.name

    @property
    def bits(self) -> int:
        """Of one weight, without its share of a scale."""
        return self.format.bits if isinstance(self.format, GroupFormat) else 8 * self.format.block_bytes

    @property
    def regions(self) -> tuple[Region, ...]:
        """Floats; or codes, scales and perhaps zero points. Each begins on a page."""
        found: list[Region] = []
        for nbytes in self._sizes():
            found.append(Region(found[-1].begin + _whole_pages(found[-1].nbytes) if found else 0, nbytes))
        return tuple(found)

    @property
    def nbytes(self) -> int:
        """From the first byte of the first array to the last byte of the last."""
        last = self.regions[-1]
        return last.begin + last.nbytes

    def chunks(self) -> Iterator[U8Array]:
        """All bytes in order; scales and zero points are held until the codes are through."""
        if not isinstance(self.format, GroupFormat):
            return repack(self.source, self.format)
        if self.format.twin is None:
            return self._fields(repack(self.source, self.format), self.format)
        return self._fields(map(self.format.from_twin, repack(self.source, self.format.twin)), self.format)

    def _sizes(self) -> list[int]:
        n_rows, n_columns = self.source.rows.n_rows, self.source.rows.n_columns
        if not isinstance(self.format, GroupFormat):
            return [n_rows * self.format.row_bytes(n_columns)]
        n_blocks = n_columns // self.format.block_size
        sizes = [n_rows * n_columns * self.format.bits // 8, 2 * n_rows * n_blocks]
        return sizes if self.format.symmetric else [*sizes, self._zeros_bytes(n_rows, n_blocks, self.format.bits)]

    def _zeros_bytes(self, n_rows: int, n_blocks: int, bits: int) -> int:
        gapless = -(-n_rows * n_blocks * bits // 8)
        return gapless if self.signed else n_rows * -(-n_blocks * bits // 8)

    def _fields(self, packed: Iterable[U8Array], format: GroupFormat) -> Iterator[U8Array]:
        n_rows, n_blocks = self.source.rows.n_rows, self.source.rows.n_columns // format.block_size
        held = np.empty((n_rows, n_blocks, format.codes_start), np.uint8)  # scales, and perhaps zero points
        row = 0
        for chunk in packed:
            blocks = chunk.reshape(len(chunk), n_blocks, format.block_bytes)
            yield self._codes(blocks[..., format.codes_start :], format)
            held[row : row + len(chunk)] = blocks[..., : format.codes_start]
            row += len(chunk)
        regions = self.regions
        yield from _after_a_gap(regions[0], regions[1], held[..., :2])
        if not format.symmetric:
            yield from _after_a_gap(regions[1], regions[2], self._packed_zeros(held[..., 2], format.bits))

    def _codes(self, codes: U8Array, format: GroupFormat) -> U8Array:
        own = codes.copy()
        if self.signed and format.symmetric:
            own ^= np.uint8({4: 0x88, 8: 0x80}[format.bits])
        return own

    def _packed_zeros(self, zeros: U8Array, bits: int) -> U8Array:
        """Zero points ``(rows, blocks)``, two of four bits in a byte."""
        if bits == 8:
            return zeros
        rows = zeros.reshape(1, -1) if self.signed else zeros
        even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
        return even[:, 0::2] | even[:, 1::2] << np.uint8(4)


@dataclass(slots=True)
class DataFile:
    """``model.onnx.data`` while the graph that refers to it is built; afterwards what the writer follows."""

    tensors: list[PlacedTensor[StoredWeight]] = field(default_factory=list)
    header: bytes = b""

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self.tensors[-1].end if self.tensors else 0

    def place(self, weight: StoredWeight) -> tuple[Region, ...]:
        """Put ``weight`` behind what is there; its arrays' places in the file."""
        begin = self.nbytes
        self.tensors.append(PlacedTensor(weight, begin, begin + _whole_pages(weight.nbytes)))
        return tuple(region.moved(begin) for region in weight.regions)

    def fingerprint(self) -> str:
        """SHA-256 of names, formats and places."""
        lines = [f"{placed.tensor.name} {placed.tensor.format} {placed.begin} {placed.end}" for placed in self.tensors]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _after_a_gap(before: Region, region: Region, array: U8Array) -> Iterator[U8Array]:
    yield np.zeros(region.begin - before.begin - before.nbytes, np.uint8)
    yield np.ascontiguousarray(array).reshape(-1)


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // _PAGE) * _PAGE
