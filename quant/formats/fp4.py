"""MXFP4 and NVFP4: 4-bit floats (E2M1), in blocks of 32 with a power of two, or of 16 with an 8-bit float as scale.

The levels are those of E2M1 doubled, so that they are integers, and the scales are halved
(OCP Microscaling Formats 1.0, sections 5.3.3 and 5.4.1).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.shared.arithmetic import reciprocal
from sprat.quant.formats.shared.fit import adopt, lanes_of, residual, sanitize, to_lanes
from sprat.quant.formats.shared.packing import pack_nibbles, unpack_nibbles

__all__ = ["MXFP4", "NVFP4"]

_LEVELS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
_MIDPOINTS = (_LEVELS[1:8] + _LEVELS[:7]) / 2
_SMALLEST_E8M0, _LARGEST_E8M0 = 2, 223  # of a search: reciprocals are finite. Of a file: those above are NaN


def _e8m0_halves() -> F32Array:
    """Half of each E8M0 value, ``2^(e - 128)``; NaN for 255, as in the standard, and for all of 2^96 and more.

    No model has such weights. Their products overflow float32 within a step, in one instruction set and not in another.
    """
    code = np.arange(256)
    return np.where(code <= _LARGEST_E8M0, np.ldexp(np.float32(1), code - 128), np.float32(np.nan))


_POWERS = _e8m0_halves()


def _e4m3_halves() -> F32Array:
    """Half of each UE4M3 value: 4 bits of exponent with bias 7, 3 of mantissa; bit 7 is ignored and 0x7F is 0."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    value = np.where(exponent > 0, (8 + mantissa) * np.exp2(exponent - 10.0), mantissa * 2.0**-9)
    value[0x7F] = 0
    return (value / 2).astype(np.float32)


_E4M3 = _e4m3_halves()
_LARGEST_E4M3 = 0x7E


class MXFP4(
    BlockFormat, ggml_type=39, file_type=38, block_size=32, block_bytes=1 + 16, fallback="F16", largest=2.0**30
):
    """``w = 2^(e - 128) * levels[qs]``; NaN where ``e`` is above 223, scales that ggml computes with."""

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """The power of two with the smallest error, of the three that may have it."""
        x = to_lanes(sanitize(blocks), 32)
        exponent = np.abs(x).max(axis=0).view(np.int32) >> 23  # of the absmax, with bias 127
        candidates = [np.clip(exponent + step, _SMALLEST_E8M0, _LARGEST_E8M0) for step in (-2, -3, -1)]
        e = _best(x, candidates, _POWERS, lanes_of(importance, 32))
        codes = _nearest_codes(x * reciprocal(_POWERS[e])).T
        return np.concatenate([e[:, None].astype(np.uint8), pack_nibbles(codes)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``2^(e - 128) * levels[qs]``."""
        return _POWERS[packed[:, :1]] * _LEVELS[unpack_nibbles(packed[:, 1:])]


class NVFP4(
    BlockFormat, ggml_type=40, file_type=39, block_size=64, block_bytes=4 + 32, fallback="MXFP4", largest=2600.0
):
    """``w = scale / 2 * levels[qs]``: four scales in UE4M3, each of 16 weights with two codes ``i, i + 8`` to a byte.

    A scale is a multiple of 2^-9, so that weights below 0.01 lose precision. Files of other programs have a factor per
    tensor beside it.
    """

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """The scale with the smallest error, of the five around that of the absmax."""
        x = to_lanes(sanitize(blocks), 16)
        center = np.searchsorted(_E4M3[: _LARGEST_E4M3 + 1], np.abs(x).max(axis=0) / np.float32(12))
        candidates = [np.clip(center + step, 0, _LARGEST_E4M3) for step in (0, -1, 1, -2, 2)]
        e = _best(x, candidates, _E4M3, lanes_of(importance, 16))
        codes = _nearest_codes(x * reciprocal(_E4M3[e])).T
        return np.concatenate([e.astype(np.uint8).reshape(-1, 4), pack_nibbles(codes).reshape(-1, 32)], axis=-1)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``scale / 2 * levels[qs]``."""
        levels = _LEVELS[unpack_nibbles(packed[:, 4:].reshape(-1, 4, 8))]
        return (_E4M3[packed[:, :4], None] * levels).reshape(-1, 64)


def _best(
    x: F32Array, candidates: list[npt.NDArray[np.int64]], values: F32Array, w: F32Array | None
) -> npt.NDArray[np.int64]:
    """For each lane, the candidate codes with the smallest error; the first of equal ones."""
    best, error = candidates[0].copy(), np.full(x.shape[1], np.inf, np.float32)
    for code in candidates:
        scale = values[code]
        new_error = residual(x, scale * _LEVELS[_nearest_codes(x * reciprocal(scale))], w)
        better = new_error < error
        best = np.where(better, code, best)
        adopt(better, (error, new_error))
    return best


def _nearest_codes(scaled: F32Array) -> U8Array:
    """Code of the nearest level; ties go to the level nearer to 0, and the code of 0 has no sign."""
    code = np.searchsorted(_MIDPOINTS, np.abs(scaled)).astype(np.uint8)
    return np.where((scaled < 0) & (code > 0), code | np.uint8(8), code)
