"""IQ4_XS: superblocks of 256 weights; eight sub-blocks of codes of IQ4_NL's levels, with a 6-bit scale each."""
# ruff: noqa: N801 - ggml's names

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats import iq4_nl
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.shared.arithmetic import LARGEST_F16, reciprocal
from sprat.quant.formats.shared.fit import lanes_of, sanitize, to_lanes
from sprat.quant.formats.shared.packing import f16_bytes, f16_values, pack_nibbles, unpack_nibbles
from sprat.quant.formats.shared.super_blocks import Levels, fit_scaled

__all__ = ["IQ4_XS"]

_LEVELS = Levels(iq4_nl.nearest_levels, iq4_nl.STARTS, -32)


class IQ4_XS(
    BlockFormat,
    ggml_type=23,
    file_type=30,
    block_size=256,
    block_bytes=2 + 2 + 4 + 128,
    fallback="IQ4_NL",
    largest=80 * 30 * LARGEST_F16,
    scale_fields={0: 32 * 127},
):
    """``w = d * (sc - 32) * levels[qs]``.

    ``scales_l`` has the low four bits of ``sc``, two sub-blocks to a byte; ``scales_h`` is a 16-bit word with the upper
    two bits of sub-block ``b`` at bit ``2 b``.
    """

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Search scales of sub-blocks, then of the superblock."""
        x = to_lanes(sanitize(blocks), 32)
        fit = fit_scaled(x, 8, _LEVELS, lanes_of(importance, 32))
        codes = iq4_nl.nearest_codes(x * reciprocal(fit.scale())).T.reshape(-1, 8, 32)
        sc = (fit.sc + 32).astype(np.uint8)
        low = sc[:, ::2] & np.uint8(15) | sc[:, 1::2] << np.uint8(4)
        high = np.bitwise_or.reduce((sc >> np.uint8(4)).astype("<u2") << np.arange(0, 16, 2, dtype="<u2"), axis=1)
        qs = pack_nibbles(codes).reshape(-1, 128)
        return np.concatenate([f16_bytes(fit.d), high[:, None].astype("<u2").view(np.uint8), low, qs], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * (sc - 32) * levels[qs]``."""
        low = np.stack([packed[:, 4:8] & np.uint8(15), packed[:, 4:8] >> np.uint8(4)], axis=-1).reshape(-1, 8)
        high = np.ascontiguousarray(packed[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype="<u2") & 3
        scale = f16_values(packed[:, :2]) * ((low | high << 4).astype(np.float32) - 32)
        levels = iq4_nl.LEVELS[unpack_nibbles(packed[:, 8:].reshape(-1, 8, 16))]
        weights: F32Array = (scale[:, :, None] * levels).reshape(-1, 256)
        return weights
