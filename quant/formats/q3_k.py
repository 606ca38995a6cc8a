"""Q3_K: superblocks of 256 weights; 16 sub-blocks of 16 3-bit codes, with a 6-bit scale each."""
# ruff: noqa: N801 - ggml's names

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.shared.arithmetic import LARGEST_F16, clipped_rint, reciprocal
from sprat.quant.formats.shared.fit import lanes_of, sanitize, to_lanes
from sprat.quant.formats.shared.packing import f16_bytes, f16_values, pack_bits, pack_pairs, unpack_bits, unpack_pairs
from sprat.quant.formats.shared.super_blocks import Levels, fit_scaled

__all__ = ["Q3_K"]


def _nearest(scaled: F32Array) -> F32Array:
    return clipped_rint(scaled, -4, 3)


_STARTS = tuple(sign * (4 + k / 4) for sign, last in ((-1, 3), (1, 0)) for k in range(-5, last + 1))
_LEVELS = Levels(_nearest, _STARTS, -32)


class Q3_K(
    BlockFormat,
    ggml_type=11,
    file_type=11,
    block_size=256,
    block_bytes=32 + 64 + 12 + 2,
    fallback="Q4_0",
    largest=3 * 30 * LARGEST_F16,
    scale_fields={108: 32 * 4},
):
    """``w = d * (sc - 32) * (q - 4)``.

    Bit ``b`` of ``hmask[i]`` is the upper bit of code ``i`` of run ``b``, where a run is two sub-blocks. ``qs`` has the
    lower two bits: byte ``i`` of each half those of its four runs. Of the twelve bytes of scales, ``i`` below 8 has the
    low nibbles of ``sc[i]`` and ``sc[i + 8]``, and ``8 + i`` the upper two bits of ``sc[i]``, ``sc[i + 4]``,
    ``sc[i + 8]`` and ``sc[i + 12]``.
    """

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Search scales of sub-blocks, then of the superblock."""
        x = to_lanes(sanitize(blocks), 16)
        fit = fit_scaled(x, 16, _LEVELS, lanes_of(importance, 16))
        codes = (_nearest(x * reciprocal(fit.scale())) + 4).T.reshape(-1, 8, 32).astype(np.uint8)
        upper = np.ascontiguousarray((codes >> 2).transpose(0, 2, 1)).reshape(-1, 256)
        low = pack_pairs((codes & np.uint8(3)).reshape(-1, 2, 4, 32)).reshape(-1, 64)
        sc = (fit.sc + 32).astype(np.uint8)
        nibbles = sc[:, :8] & np.uint8(15) | sc[:, 8:] << np.uint8(4)
        return np.concatenate(
            [pack_bits(upper), low, nibbles, pack_pairs((sc >> np.uint8(4)).reshape(-1, 4, 4)), f16_bytes(fit.d)],
            axis=-1,
        )

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * (sc - 32) * (q - 4)``."""
        upper = unpack_bits(packed[:, :32]).reshape(-1, 32, 8).transpose(0, 2, 1)
        low = unpack_pairs(packed[:, 32:96].reshape(-1, 2, 32)).reshape(-1, 8, 32)
        q = (low | upper << np.uint8(2)).astype(np.float32) - 4
        nibbles = np.concatenate([packed[:, 96:104] & np.uint8(15), packed[:, 96:104] >> np.uint8(4)], axis=-1)
        sc = nibbles | unpack_pairs(packed[:, 104:108]).reshape(-1, 16) << np.uint8(4)
        scale = f16_values(packed[:, 108:]) * (sc.astype(np.float32) - 32)
        weights: F32Array = (scale[:, :, None] * q.reshape(-1, 16, 16)).reshape(-1, 256)
        return weights
