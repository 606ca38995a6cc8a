"""Q2_0: blocks of 64 2-bit codes and one scale."""
# ruff: noqa: N801 - ggml's names

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.shared.arithmetic import LARGEST_F16, clipped_rint, reciprocal, saturate_f16
from sprat.quant.formats.shared.fit import lanes_of, sanitize, scale_fit, to_lanes
from sprat.quant.formats.shared.packing import f16_bytes, f16_values, pack_pairs, unpack_pairs

__all__ = ["Q2_0"]

_STARTS = tuple(sign * k / 8 for sign in (-1, 1) for k in range(4, 30))


class Q2_0(
    BlockFormat,
    ggml_type=42,
    file_type=41,
    block_size=64,
    block_bytes=2 + 16,
    fallback="Q4_0",
    largest=LARGEST_F16,
    scale_fields={0: 2},
):
    """``w = d * (qs - 1)``: four codes to a byte, the first in the lowest bits."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Search the scale, of either sign; ggml's own quantizer takes the absmax, which has a far larger error."""
        x = to_lanes(sanitize(blocks), 64)
        d = saturate_f16(scale_fit(x, _nearest, _STARTS, lanes_of(importance, 64)))
        codes = (_nearest(x * reciprocal(d)) + 1).T.astype(np.uint8)
        return np.concatenate([f16_bytes(d[:, None]), pack_pairs(codes.reshape(-1, 16, 4).transpose(0, 2, 1))], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * (qs - 1)``."""
        codes = unpack_pairs(packed[:, 2:]).transpose(0, 2, 1).reshape(-1, 64)
        return (codes.astype(np.float32) - 1) * f16_values(packed[:, :2])


def _nearest(scaled: F32Array) -> F32Array:
    return clipped_rint(scaled, -1, 2)
