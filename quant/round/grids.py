"""The grids of the block formats: one object per format.

``SingleScale`` is a block of one float16 scale (and offset) before or behind its codes; superblocks have integer scales
of their sub-blocks times a float16 of the whole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats import get_format, iq4_nl
from sprat.quant.formats.shared.arithmetic import clipped_rint, reciprocal, saturate_f16
from sprat.quant.formats.shared.packing import f16_bytes, f16_values, pack_bits, pack_nibbles, pack_pairs, unpack_pairs
from sprat.quant.round.grid import Grid, add_grid

__all__: list[str] = []

Pack = Callable[[U8Array], U8Array]


class SingleScale(Grid):
    """Blocks of a float16 scale, an optional float16 minimum, and codes.

    Args:
        levels: value of each code.
        pack: codes ``(n, block_size)`` to the block's bytes after scale and minimum.
        block_size: weights per block.
        has_minimum: the block has a minimum, ``w = d * code + m``.
    """

    def __init__(self, levels: F32Array, pack: Pack, *, block_size: int = 32, has_minimum: bool = False) -> None:
        super().__init__(levels, sub_block=block_size, has_offset=has_minimum)
        self._pack = pack
        self._codes_start = 4 if has_minimum else 2

    def scales(self, packed: U8Array) -> tuple[F32Array, F32Array]:
        """``d`` and ``-m``."""
        d = f16_values(packed[:, :2])
        return d, -f16_values(packed[:, 2:4]) if self.has_offset else np.zeros_like(d)

    def with_scales(self, packed: U8Array, scale: F32Array, offset: F32Array) -> U8Array:
        """Both rounded to float16."""
        fields = [scale, -offset] if self.has_offset else [scale]
        header = f16_bytes(np.concatenate([saturate_f16(field) for field in fields], axis=1))
        return np.concatenate([header, packed[:, self._codes_start :]], axis=1)

    def with_codes(self, packed: U8Array, codes: U8Array) -> U8Array:
        """Codes follow scale and minimum."""
        return np.concatenate([packed[:, : self._codes_start], self._pack(codes)], axis=1)


class AffineSuperblock(Grid):
    """Q4_K and Q5_K: eight sub-blocks of 32 with 6-bit integers ``sc`` and ``m``, ``w = d * sc * q - dmin * m``."""

    def __init__(self, bits: int) -> None:
        super().__init__(np.arange(1 << bits), sub_block=32, has_offset=True)
        self._bits = bits

    def scales(self, packed: U8Array) -> tuple[F32Array, F32Array]:
        """``d * sc`` and ``dmin * m``."""
        sc, m = _six_bit_pairs(packed[:, 4:16])
        d, dmin = f16_values(packed[:, :2]), f16_values(packed[:, 2:4])
        return d * sc.astype(np.float32), dmin * m.astype(np.float32)

    def with_scales(self, packed: U8Array, scale: F32Array, offset: F32Array) -> U8Array:
        """The nearest integers times ``d`` and ``dmin``."""
        d, dmin = f16_values(packed[:, :2]), f16_values(packed[:, 2:4])
        sc, m = (_integers(v, unit, 0, 63).astype(np.uint8) for v, unit in ((scale, d), (offset, dmin)))
        return np.concatenate([packed[:, :4], _pack_six_bit_pairs(sc, m), packed[:, 16:]], axis=1)

    def with_codes(self, packed: U8Array, codes: U8Array) -> U8Array:
        """Low nibbles in pairs of sub-blocks; the fifth bits before them."""
        runs = codes.reshape(-1, 8, 32)
        low = pack_nibbles((runs & np.uint8(15)).reshape(-1, 4, 64)).reshape(-1, 128)
        if self._bits == 4:
            return np.concatenate([packed[:, :16], low], axis=1)
        fifth = np.ascontiguousarray((runs >> 4).transpose(0, 2, 1)).reshape(-1, 256)
        return np.concatenate([packed[:, :16], pack_bits(fifth), low], axis=1)


class Q2Superblock(Grid):
    """Q2_K: 16 sub-blocks of 16 with 4-bit integers ``sc`` and ``m`` in one byte, ``w = d * sc * q - dmin * m``."""

    def __init__(self) -> None:
        super().__init__(np.arange(4), sub_block=16, has_offset=True)

    def scales(self, packed: U8Array) -> tuple[F32Array, F32Array]:
        """``d * sc`` and ``dmin * m``."""
        d, dmin, nibbles = f16_values(packed[:, 80:82]), f16_values(packed[:, 82:84]), packed[:, :16]
        return d * (nibbles & np.uint8(15)).astype(np.float32), dmin * (nibbles >> np.uint8(4)).astype(np.float32)

    def with_scales(self, packed: U8Array, scale: F32Array, offset: F32Array) -> U8Array:
        """The nearest integers times ``d`` and ``dmin``."""
        d, dmin = f16_values(packed[:, 80:82]), f16_values(packed[:, 82:84])
        sc, m = (_integers(v, unit, 0, 15) for v, unit in ((scale, d), (offset, dmin)))
        return np.concatenate([sc | m << np.uint8(4), packed[:, 16:]], axis=1)

    def with_codes(self, packed: U8Array, codes: U8Array) -> U8Array:
        """Four runs of 32 to the bytes of each half."""
        pairs = pack_pairs(codes.reshape(-1, 2, 4, 32)).reshape(-1, 64)
        return np.concatenate([packed[:, :16], pairs, packed[:, 80:]], axis=1)


class Q3Superblock(Grid):
    """Q3_K: 16 sub-blocks of 16 with 6-bit ``sc``, ``w = d * (sc - 32) * (q - 4)``."""

    def __init__(self) -> None:
        super().__init__(np.arange(-4, 4), sub_block=16, has_offset=False)

    def scales(self, packed: U8Array) -> tuple[F32Array, F32Array]:
        """``d * (sc - 32)``."""
        nibbles = np.concatenate([packed[:, 96:104] & np.uint8(15), packed[:, 96:104] >> np.uint8(4)], axis=1)
        sc = nibbles | unpack_pairs(packed[:, 104:108]).reshape(-1, 16) << np.uint8(4)
        scale = f16_values(packed[:, 108:]) * (sc.astype(np.float32) - 32)
        return scale, np.zeros_like(scale)

    def with_scales(self, packed: U8Array, scale: F32Array, offset: F32Array) -> U8Array:
        """The nearest integers times ``d``."""
        sc = (_integers(scale, f16_values(packed[:, 108:]), -32, 31) + 32).astype(np.uint8)
        nibbles = sc[:, :8] & np.uint8(15) | sc[:, 8:] << np.uint8(4)
        upper = pack_pairs((sc >> np.uint8(4)).reshape(-1, 4, 4))
        return np.concatenate([packed[:, :96], nibbles, upper, packed[:, 108:]], axis=1)

    def with_codes(self, packed: U8Array, codes: U8Array) -> U8Array:
        """Upper bits of eight runs, then the lower bit pairs of four runs per half."""
        runs = codes.reshape(-1, 8, 32)
        upper = pack_bits(np.ascontiguousarray((runs >> 2).transpose(0, 2, 1)).reshape(-1, 256))
        low = pack_pairs((runs & np.uint8(3)).reshape(-1, 2, 4, 32)).reshape(-1, 64)
        return np.concatenate([upper, low, packed[:, 96:]], axis=1)


class CodebookSuperblock(Grid):
    """IQ4_XS: eight sub-blocks of 32 with 6-bit ``sc``, ``w = d * (sc - 32) * levels[q]``."""

    def __init__(self) -> None:
        super().__init__(iq4_nl.LEVELS, sub_block=32, has_offset=False)

    def scales(self, packed: U8Array) -> tuple[F32Array, F32Array]:
        """``d * (sc - 32)``."""
        low = np.stack([packed[:, 4:8] & np.uint8(15), packed[:, 4:8] >> np.uint8(4)], axis=-1).reshape(-1, 8)
        high = np.ascontiguousarray(packed[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype="<u2") & 3
        scale = f16_values(packed[:, :2]) * ((low | high << 4).astype(np.float32) - 32)
        return scale, np.zeros_like(scale)

    def with_scales(self, packed: U8Array, scale: F32Array, offset: F32Array) -> U8Array:
        """The nearest integers times ``d``."""
        sc = (_integers(scale, f16_values(packed[:, :2]), -32, 31) + 32).astype(np.uint8)
        low = sc[:, ::2] & np.uint8(15) | sc[:, 1::2] << np.uint8(4)
        high = np.bitwise_or.reduce((sc >> np.uint8(4)).astype("<u2") << np.arange(0, 16, 2, dtype="<u2"), axis=1)
        return np.concatenate([packed[:, :2], high[:, None].view(np.uint8), low, packed[:, 8:]], axis=1)

    def with_codes(self, packed: U8Array, codes: U8Array) -> U8Array:
        """Nibbles, sub-block by sub-block."""
        return np.concatenate([packed[:, :8], pack_nibbles(codes.reshape(-1, 8, 32)).reshape(-1, 128)], axis=1)


class PowerOfTwoScale(Grid):
    """MXFP4: blocks of 32 E2M1 codes with a power of two, ``w = 2^(e - 128) * level``."""

    _POSITIVE = (1, 2, 3, 4, 6, 8, 12)

    def __init__(self) -> None:
        levels = [*(-level for level in reversed(self._POSITIVE)), 0, *self._POSITIVE]
        super().__init__(levels, sub_block=32, has_offset=False)
        self._stored = np.array([*range(15, 8, -1), *range(8)], np.uint8)  # sign and magnitude of each level

    def scales(self, packed: U8Array) -> tuple[F32Array, F32Array]:
        """``2^(e - 128)``."""
        scale = np.ldexp(np.float32(1), packed[:, :1].astype(np.int32) - 128)
        return scale, np.zeros_like(scale)

    def with_scales(self, packed: U8Array, scale: F32Array, offset: F32Array) -> U8Array:
        """The nearest power of two by ratio; a scale that is not positive leaves it as it is."""
        exponent = np.rint(np.log2(np.where(scale > 0, scale, np.float32(1)))) + 128
        kept = np.where(scale > 0, np.clip(exponent, 0, 254), packed[:, :1]).astype(np.uint8)
        return np.concatenate([kept, packed[:, 1:]], axis=1)

    def with_codes(self, packed: U8Array, codes: U8Array) -> U8Array:
        """Sign and magnitude of each level, in nibbles."""
        return np.concatenate([packed[:, :1], pack_nibbles(self._stored[codes])], axis=1)


class Q6Superblock(Grid):
    """Q6_K: 16 sub-blocks of 16 with int8 ``sc``, ``w = d * sc * (q - 32)``."""

    def __init__(self) -> None:
        super().__init__(np.arange(-32, 32), sub_block=16, has_offset=False)

    def scales(self, packed: U8Array) -> tuple[F32Array, F32Array]:
        """``d * sc``."""
        scale = f16_values(packed[:, 208:]) * packed[:, 192:208].view(np.int8).astype(np.float32)
        return scale, np.zeros_like(scale)

    def with_scales(self, packed: U8Array, scale: F32Array, offset: F32Array) -> U8Array:
        """The nearest int8 times ``d``."""
        sc = _integers(scale, f16_values(packed[:, 208:]), -128, 127)
        return np.concatenate([packed[:, :192], sc.view(np.uint8), packed[:, 208:]], axis=1)

    def with_codes(self, packed: U8Array, codes: U8Array) -> U8Array:
        """Low nibbles and upper bit pairs of four runs per half."""
        runs = codes.reshape(-1, 2, 4, 32)
        ql = pack_nibbles((runs & np.uint8(15)).reshape(-1, 2, 128)).reshape(-1, 128)
        qh = np.bitwise_or.reduce((runs >> 4) << np.array([[0], [2], [4], [6]], np.uint8), axis=2).reshape(-1, 64)
        return np.concatenate([ql, qh, packed[:, 192:]], axis=1)


@np.errstate(divide="ignore", invalid="ignore")  # a superblock of zeros has a unit of 0
def _integers(values: F32Array, unit: F32Array, smallest: int, largest: int) -> npt.NDArray[np.integer]:
    """The integers that times ``unit`` are nearest to ``values``; int8 where they may be negative."""
    rounded = clipped_rint(values * reciprocal(unit), smallest, largest)
    return rounded.astype(np.int8 if smallest < 0 else np.uint8)


def _six_bit_pairs(packed: U8Array) -> tuple[U8Array, U8Array]:
    """Twelve bytes to eight scales and eight minima of six bits."""
    sc, m, lower = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([sc & 63, lower & np.uint8(15) | sc >> np.uint8(6) << np.uint8(4)], axis=1)
    minima = np.concatenate([m & 63, lower >> np.uint8(4) | m >> np.uint8(6) << np.uint8(4)], axis=1)
    return scales, minima


def _pack_six_bit_pairs(sc: U8Array, m: U8Array) -> U8Array:
    """Inverse of :func:`_six_bit_pairs`."""
    first = sc[:, :4] | sc[:, 4:] >> np.uint8(4) << np.uint8(6)
    second = m[:, :4] | m[:, 4:] >> np.uint8(4) << np.uint8(6)
    return np.concatenate([first, second, sc[:, 4:] & 15 | (m[:, 4:] & 15) << np.uint8(4)], axis=1)


def _pack_five(codes: U8Array) -> U8Array:
    return np.concatenate([pack_bits(codes >> np.uint8(4)), pack_nibbles(codes & np.uint8(15))], axis=1)


def _pack_int8(codes: U8Array) -> U8Array:
    return (codes.astype(np.int16) - 127).astype(np.int8).view(np.uint8)


def _pack_four_runs(codes: U8Array) -> U8Array:
    return pack_pairs(codes.reshape(-1, 16, 4).transpose(0, 2, 1))


_FOUR, _FIVE = (np.arange(1 << bits, dtype=np.float32) for bits in (4, 5))
for _name, _grid in {
    "Q4_0": SingleScale(_FOUR - 8, pack_nibbles),
    "Q4_1": SingleScale(_FOUR, pack_nibbles, has_minimum=True),
    "Q5_0": SingleScale(_FIVE - 16, _pack_five),
    "Q5_1": SingleScale(_FIVE, _pack_five, has_minimum=True),
    "Q8_0": SingleScale(np.arange(-127, 128, dtype=np.float32), _pack_int8),
    "IQ4_NL": SingleScale(iq4_nl.LEVELS, pack_nibbles),
    "Q2_0": SingleScale(np.arange(-1, 3, dtype=np.float32), _pack_four_runs, block_size=64),
    "MXFP4": PowerOfTwoScale(),
    "Q2_K": Q2Superblock(),
    "Q3_K": Q3Superblock(),
    "IQ4_XS": CodebookSuperblock(),
    "Q4_K": AffineSuperblock(4),
    "Q5_K": AffineSuperblock(5),
    "Q6_K": Q6Superblock(),
}.items():
    add_grid(get_format(_name), _grid)
