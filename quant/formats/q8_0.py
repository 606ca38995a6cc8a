"""Q8_0: blocks of 32 int8 codes and one scale."""
# ruff: noqa: N801 - ggml's names

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.shared.arithmetic import LARGEST_F16, clipped_rint, reciprocal, saturate_f16
from sprat.quant.formats.shared.fit import sanitize, scale_fit, to_lanes
from sprat.quant.formats.shared.packing import f16_bytes, f16_values

__all__ = ["Q8_0"]

_STARTS = tuple(124 + k / 2 for k in range(9))


class Q8_0(
    BlockFormat,
    ggml_type=8,
    file_type=7,
    block_size=32,
    block_bytes=2 + 32,
    largest=127 * LARGEST_F16,
    scale_fields={0: 128},
):
    """``w = d * qs``: ``d`` float16, ``qs`` int8 in -127 .. 127."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Scale the absmax to 127 and round half away from zero, like ggml's reference."""
        if importance is not None:
            return self._searched(blocks, importance)
        d = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
        scaled = blocks * reciprocal(d)
        magnitude = np.abs(scaled)
        whole = np.floor(magnitude)
        rounded = np.copysign(whole + (magnitude - whole >= np.float32(0.5)), scaled)
        qs = np.where(np.isfinite(rounded), rounded, np.float32(0)).astype(np.int8)
        return np.concatenate([f16_bytes(d), qs.view(np.uint8)], axis=-1)

    def _searched(self, blocks: F32Array, importance: F32Array) -> U8Array:
        """The scale with the smallest weighted error."""

        def levels(scaled: F32Array) -> F32Array:
            return clipped_rint(scaled, -127, 127)

        x = to_lanes(sanitize(blocks), 32)
        d = saturate_f16(scale_fit(x, levels, _STARTS, to_lanes(importance, 32)))
        qs = levels(x * reciprocal(d)).T.astype(np.int8)
        return np.concatenate([f16_bytes(d[:, None]), np.ascontiguousarray(qs).view(np.uint8)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * qs``."""
        return f16_values(packed[:, :2]) * packed[:, 2:].view(np.int8).astype(np.float32)
