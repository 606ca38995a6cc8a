"""IQ4_NL: 4-bit codes of a non-uniform codebook of 16 levels, dense near zero."""
# ruff: noqa: N801 - ggml's names

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.shared.arithmetic import LARGEST_F16, reciprocal, saturate_f16
from sprat.quant.formats.shared.fit import lanes_of, sanitize, scale_fit, to_lanes
from sprat.quant.formats.shared.packing import f16_bytes, f16_values, pack_nibbles, unpack_nibbles

__all__ = ["IQ4_NL", "LEVELS", "STARTS", "nearest_codes", "nearest_levels"]

# https://github.com/ggml-org/llama.cpp/pull/5590: the specification of the format
LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
# Midpoints between levels are multiples of 1/2, so the level nearest to y depends on ceil(2 y), indexed with +256.
_CODE_OF = np.searchsorted(LEVELS[1:] + LEVELS[:-1], np.arange(-256, 256)).astype(np.uint8)
STARTS = tuple(end + 5 * k for end in (-127, 113) for k in range(-4, 5))


class IQ4_NL(
    BlockFormat,
    ggml_type=20,
    file_type=25,
    block_size=32,
    block_bytes=2 + 16,
    largest=80 * LARGEST_F16,
    scale_fields={0: 127},
):
    """``w = d * levels[qs]``."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Search the scale with the absmax near either end of the levels, which are not symmetric."""
        x, w = to_lanes(sanitize(blocks), 32), lanes_of(importance, 32)
        d = saturate_f16(scale_fit(x, nearest_levels, STARTS, w))
        codes = nearest_codes(x * reciprocal(d)).T
        return np.concatenate([f16_bytes(d[:, None]), pack_nibbles(codes)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * levels[qs]``."""
        return f16_values(packed[:, :2]) * LEVELS[unpack_nibbles(packed[:, 2:])]


def nearest_codes(scaled: F32Array) -> U8Array:
    """Code of the nearest level; ties go to the lower level."""
    return _CODE_OF[np.ceil(np.clip(2 * scaled, -256, 255)).astype(np.int16) + 256]


def nearest_levels(scaled: F32Array) -> F32Array:
    """The nearest level; ties go to the lower one."""
    return LEVELS[nearest_codes(scaled)]
