"""F32, F16 and BF16: formats of one weight per block, rounded to nearest even."""

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.shared.arithmetic import LARGEST_ROUNDED_F16

__all__ = ["BF16", "F16", "F32"]


_LARGEST_F32 = float(np.finfo(np.float32).max)
_LARGEST_BF16 = float(np.uint32(0x7F7F7FFF).view(np.float32))  # the next one is rounded to infinity


class F32(BlockFormat, ggml_type=0, file_type=0, block_size=1, block_bytes=4, largest=_LARGEST_F32):
    """IEEE binary32."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """The same bytes."""
        return blocks.view(np.uint8)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """The same bytes."""
        return packed.view(np.float32)


class F16(BlockFormat, ggml_type=1, file_type=1, block_size=1, block_bytes=2, largest=LARGEST_ROUNDED_F16):
    """IEEE binary16: subnormals are exact, values from 65520 on become infinite, NaN stays NaN."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Round to nearest even."""
        return blocks.astype(np.float16).view(np.uint8)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """Convert to float32, exactly."""
        return packed.view(np.float16).astype(np.float32)


class BF16(BlockFormat, ggml_type=30, file_type=32, block_size=1, block_bytes=2, largest=_LARGEST_BF16):
    """The upper 16 bits of a binary32."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Round to nearest even; NaN becomes quiet, so that it is not rounded to infinity."""
        bits = blocks.view(np.uint32)
        is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
        rounded = bits + (0x7FFF + ((bits >> 16) & 1)) * ~is_nan | is_nan * np.uint32(0x00400000)
        return (rounded >> 16).astype(np.uint16).view(np.uint8)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """Convert to float32, exactly."""
        return (packed.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
