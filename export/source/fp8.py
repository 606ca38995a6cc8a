"""FP8 checkpoints: E4M3 codes with one scale per block of 128 x 128 weights, or of the config's ``weight_block_size``.

``weight[i, j] = code[i, j] * weight_scale_inv[i // 128, j // 128]`` (DeepSeek-V3's ``inference/kernel.py``,
``weight_dequant``; the name says inverse because the factor undoes the scaling). A code has a sign bit, 4 exponent bits
with bias 7 and 3 mantissa bits. There is no infinity, NaN has all bits but the sign set, and the largest value is 448
(arXiv 2209.05433, table 1).

Scales are float32, or UE8M0: a byte ``e`` that means ``2 ** (e - 127)``, with 255 for NaN (OCP Microscaling
Formats 1.0, section 5.4.1). DeepSeek-V3.1 stores such powers of two as float32; transformers 5 stores the bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sprat.alignment import ceil_div
from sprat.arrays import F32Array, U8Array
from sprat.errors import FormatError
from sprat.export.source.file import FileTensor
from sprat.export.source.rows import Measured, RowSource, RowView, read_rows
from sprat.quant.formats import BlockFormat, get_format
from sprat.runtime.arch.fp8_config import fp8_block

__all__ = ["F8_E4M3", "F8_E8M0", "SCALE_SUFFIX", "ScaledBlocks", "scale_shape", "stored_rows"]

SCALE_SUFFIX = "_scale_inv"  # after the name of the codes
Block: TypeAlias = tuple[int, int] | None  # rows and columns that share a scale; None: the whole tensor shares it
_DEFAULT_BLOCK = (128, 128)


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

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        raise FormatError(f"{self.name} can be read but not written; use Q8_0 or BF16")

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        return _VALUES.take(packed)


_E4M3.name = "F8_E4M3"  # the name in safetensors
F8_E4M3 = _E4M3()


class _E8M0(BlockFormat, ggml_type=-1, file_type=-1, block_size=1, block_bytes=1, register=False):
    """UE8M0: unsigned exponents, of scales only."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        raise FormatError(f"{self.name} can be read but not written; use F32")

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        return _POWERS.take(packed)


_POWERS = np.append(np.ldexp(np.float32(1), np.arange(255) - 127), np.float32(np.nan))
_E8M0.name = "F8_E8M0"  # the name in safetensors
F8_E8M0 = _E8M0()


def scale_shape(shape: tuple[int, ...], block: Block = _DEFAULT_BLOCK) -> tuple[int, ...]:
    """Shape of the scales of FP8 weights of ``shape``: one scale per block, partial blocks at the edges included."""
    return (1,) if block is None else tuple(map(ceil_div, shape, block))


@dataclass(frozen=True, slots=True)
class ScaledBlocks(RowView):
    """FP8 codes times their block scales, as float32 rows; ``scales`` has the shape of :func:`scale_shape`."""

    scales: RowSource
    block: Block = _DEFAULT_BLOCK

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
        height, width = self.block or (self.n_rows, self.n_columns)
        first, stop = start // height, start + len(out)
        packed_scales = read_rows(self.scales, first, ceil_div(stop, height))
        scales = self.scales.format.dequantize(packed_scales).repeat(width, axis=1)[:, : self.n_columns]
        weights = out.view(np.float32)
        for row, codes in enumerate(read_rows(self.rows, start, stop)):  # row by row: it stays in L1 for both steps
            _VALUES.take(codes, out=weights[row], mode="clip")
            weights[row] *= scales[(start + row) // height - first]


def stored_rows(stored: Mapping[str, FileTensor], name: str, config: Mapping[str, Any]) -> RowSource:
    """The weights of a stored tensor: as they are, or FP8 codes times their scales."""
    tensor, scales = stored[name], stored.get(name + SCALE_SUFFIX)
    if tensor.format is not F8_E4M3 or scales is None:
        return tensor
    return ScaledBlocks(tensor, scales, fp8_block(config))
