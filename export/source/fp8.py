"""FP8 checkpoints of DeepSeek-V3 and R1: E4M3 codes with one float32 scale per block of 128 x 128 weights.

``weight[i, j] = code[i, j] * weight_scale_inv[i // 128, j // 128]`` (DeepSeek-V3's ``inference/kernel.py``,
``weight_dequant``; the name says inverse because the factor undoes the scaling). A code has a sign bit, 4 exponent bits
with bias 7 and 3 mantissa bits. There is no infinity, NaN has all bits but the sign set, and the largest value is 448
(arXiv 2209.05433, table 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sprat.alignment import ceil_div
from sprat.arrays import F32Array, U8Array
from sprat.errors import FormatError
from sprat.export.source.file import FileTensor
from sprat.export.source.rows import Measured, RowSource, RowView, read_rows
from sprat.quant.formats import BlockFormat, get_format

__all__ = ["F8_E4M3", "ScaledBlocks", "scale_shape"]

BLOCK = 128  # rows and columns that share a scale


def _decode_table() -> F32Array:
    """The value of each of the 256 codes."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    normal = (8 + mantissa) * np.exp2(exponent - 10.0)
    magnitude = np.where(exponent > 0, normal, mantissa * 2.0**-9)
    magnitude[(codes & 0x7F) == 0x7F] = np.nan
    return np.where(codes & 0x80, -magnitude, magnitude).astype(np.float32)


_VALUES = _decode_table()


class _E4M3(BlockFormat, ggml_type=-1, file_type=-1, block_size=1, block_bytes=1, register=False):
    """Codes without their scales; ggml has no such type, so this format is read and never written."""

    def quantize_blocks(self, blocks: F32Array) -> U8Array:
        raise FormatError(f"{self.name} can be read but not written; use Q8_0 or BF16")

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        return _VALUES.take(packed)


_E4M3.name = "F8_E4M3"  # the name in safetensors
F8_E4M3 = _E4M3()


def scale_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the scales of FP8 weights of ``shape``: one scale per block, partial blocks at the edges included."""
    return tuple(ceil_div(size, BLOCK) for size in shape)


@dataclass(frozen=True, slots=True)
class ScaledBlocks(RowView):
    """FP8 codes times their block scales, as float32 rows; ``scales`` has the shape of :func:`scale_shape`."""

    scales: RowSource

    @property
    def format(self) -> BlockFormat:
        """F32: no smaller format holds code times scale exactly."""
        return get_format("F32")

    def bound(self, measured: Measured) -> float:
        """The largest code times the largest scale."""
        return self.rows.bound(measured) * self.scales.bound(measured)

    def stored(self) -> Iterator[FileTensor]:
        """Codes and scales."""
        return itertools.chain(self.rows.stored(), self.scales.stored())

    def read_into(self, start: int, out: U8Array) -> None:
        """Rows from ``start`` on, as float32 bytes."""
        first, stop = start // BLOCK, start + len(out)
        packed_scales = read_rows(self.scales, first, ceil_div(stop, BLOCK))
        scales = self.scales.format.dequantize(packed_scales).repeat(BLOCK, axis=1)[:, : self.n_columns]
        weights = out.view(np.float32)
        for row, codes in enumerate(read_rows(self.rows, start, stop)):  # row by row: it stays in L1 for both steps
            _VALUES.take(codes, out=weights[row], mode="clip")
            weights[row] *= scales[(start + row) // BLOCK - first]
