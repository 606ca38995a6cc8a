"""Q2_K: superblocks of 256 weights; 16 sub-blocks of 16 2-bit codes, with a 4-bit scale and a 4-bit minimum each."""
# ruff: noqa: N801 - ggml's names

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.shared.affine_super_blocks import Affine, fit_super_blocks
from sprat.quant.formats.shared.arithmetic import LARGEST_F16
from sprat.quant.formats.shared.fit import lanes_of, sanitize, to_lanes
from sprat.quant.formats.shared.packing import f16_bytes, f16_values, pack_pairs, unpack_pairs

__all__ = ["Q2_K"]


class Q2_K(
    BlockFormat,
    ggml_type=10,
    file_type=10,
    block_size=256,
    block_bytes=16 + 64 + 2 + 2,
    fallback="Q4_0",
    largest=14 * LARGEST_F16,
    scale_fields={80: 15 * 3, 82: 15},
):
    """``w = d * sc * q - dmin * m``: a byte of scales has ``sc`` in its low and ``m`` in its high nibble.

    Byte ``i`` of each half of ``qs`` has code ``i`` of the half's four runs of 32.
    """

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Search scales and minima of sub-blocks, then of the superblock."""
        fit = fit_super_blocks(to_lanes(sanitize(blocks), 16), Affine(16, 3, 15), lanes_of(importance, 16))
        codes = pack_pairs(fit.codes.reshape(-1, 2, 4, 32)).reshape(-1, 64)
        return np.concatenate([fit.sc | fit.m << np.uint8(4), codes, f16_bytes(fit.d), f16_bytes(fit.dmin)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * sc * q - dmin * m``."""
        scale = f16_values(packed[:, 80:82]) * (packed[:, :16] & np.uint8(15)).astype(np.float32)
        minimum = f16_values(packed[:, 82:84]) * (packed[:, :16] >> np.uint8(4)).astype(np.float32)
        q = unpack_pairs(packed[:, 16:80].reshape(-1, 2, 32)).reshape(-1, 16, 16).astype(np.float32)
        return (scale[:, :, None] * q - minimum[:, :, None]).reshape(-1, 256)
