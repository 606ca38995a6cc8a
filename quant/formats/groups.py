"""The group formats of ONNX: blocks of 32, 64 or 128 codes of 4 or 8 bits, with a scale and an optional zero point.

``w = d * (q - z)`` with unsigned codes ``q``; without a zero point ``z`` is half the range. The packed block::

    symmetric    d: float16 | codes
    asymmetric   d: float16 | z: one byte | codes        two 4-bit codes per byte, the first in the low nibble

A writer separates these fields: ``MatMulNBits``, ``QMoE``, ``GatherBlockQuantized`` and ``DequantizeLinear`` take one
tensor per field, with the codes in this order
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).

Symmetric blocks of 32 have the codes and scales of Q4_0 and Q8_0.
"""

from __future__ import annotations

import itertools
import types
from typing import ClassVar

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats.block import BlockFormat, get_format
from sprat.quant.formats.legacy import Q4_0
from sprat.quant.formats.q8_0 import Q8_0
from sprat.quant.formats.shared.arithmetic import LARGEST_F16, clipped_rint, divide, reciprocal, saturate_f16
from sprat.quant.formats.shared.fit import adopt, column_sums, lanes_of, residual, sanitize, scale_fit, to_lanes, weigh
from sprat.quant.formats.shared.packing import f16_bytes, f16_values

__all__ = ["GROUP_SIZES", "GroupFormat", "group_format"]

GROUP_SIZES = (32, 64, 128)

_SCALE_BYTES = 2
_FORMATS: dict[tuple[int, int, bool], GroupFormat] = {}
_Q4_0, _Q8_0 = get_format(Q4_0.name), get_format(Q8_0.name)  # the registered ones: their blocks are copied, not rounded
_AFFINE_STARTS = tuple(np.float32(k / 4) for k in range(-4, 5))
# Levels to which the absmax is mapped
_STARTS = {4: (-8.5, -8.0, -7.5, -7.0, 7.0, 7.5), 8: (-128.0, -127.5, 127.0, 127.5)}


def _largest(bits: int, block_size: int, *, symmetric: bool) -> float:
    """The largest weight: as ggml's for the same codes, else of the shorter side less a rounded zero point."""
    if symmetric and block_size == _Q4_0.block_size:
        return _Q4_0.largest if bits == 4 else _Q8_0.largest
    return ((1 << (bits - 1)) - (1 if symmetric else 2)) * LARGEST_F16


def group_format(bits: int, block_size: int, *, symmetric: bool = True) -> GroupFormat:
    """The format with codes of 4 or 8 ``bits`` in blocks of 32, 64 or 128."""
    return _FORMATS[bits, block_size, symmetric]


class GroupFormat(BlockFormat, ggml_type=-1, file_type=-1, block_size=1, block_bytes=1, register=False):
    """Base of the group formats, which GGUF does not have; see :func:`group_format`."""

    bits: ClassVar[int]
    symmetric: ClassVar[bool]

    def __init_subclass__(cls, *, bits: int, block_size: int, symmetric: bool) -> None:
        block_bytes = _SCALE_BYTES + (not symmetric) + block_size * bits // 8
        super().__init_subclass__(
            ggml_type=-1,
            file_type=-1,
            block_size=block_size,
            block_bytes=block_bytes,
            largest=_largest(bits, block_size, symmetric=symmetric),
            register=False,
        )
        cls.bits, cls.symmetric = bits, symmetric
        _FORMATS[bits, block_size, symmetric] = cls()

    @property
    def codes_start(self) -> int:
        """Offset of the codes in a block."""
        return _SCALE_BYTES + (not self.symmetric)

    @property
    def half_range(self) -> int:
        """The zero point of a symmetric block."""
        return 1 << (self.bits - 1)

    @property
    def ggml_format(self) -> BlockFormat | None:
        """The ggml format with the same codes and scales in as many bytes, if any."""
        if not self.symmetric or self.block_size != _Q4_0.block_size:
            return None
        return _Q4_0 if self.bits == 4 else _Q8_0

    def from_ggml(self, packed: U8Array) -> U8Array:
        """Reorder ``(..., row_bytes)`` bytes of :attr:`ggml_format`."""
        blocks = packed.reshape(-1, self.block_bytes)
        scales, codes = blocks[:, :_SCALE_BYTES], blocks[:, _SCALE_BYTES:]
        ordered = _interleave(codes) if self.bits == 4 else codes ^ np.uint8(self.half_range)  # int8 to offset
        return np.concatenate([scales, ordered], axis=-1).reshape(packed.shape)

    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Quantize as :attr:`ggml_format` does; without one, fit scale and zero point by least squares."""
        if self.ggml_format:
            return self.from_ggml(self.ggml_format.quantize(blocks, importance))
        w = lanes_of(importance, self.block_size)
        return self._fit_scale(blocks, w) if self.symmetric else self._fit_affine(blocks, w)

    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """``d * (q - z)``."""
        zero = np.float32(self.half_range) if self.symmetric else packed[:, 2:3].astype(np.float32)
        return f16_values(packed[:, :2]) * (self._codes(packed) - zero)

    def _fit_scale(self, blocks: F32Array, w: F32Array | None) -> U8Array:
        x, half = to_lanes(sanitize(blocks), self.block_size), self.half_range
        d = saturate_f16(scale_fit(x, lambda scaled: clipped_rint(scaled, -half, half - 1), _STARTS[self.bits], w))
        return self._pack(d, clipped_rint(x * reciprocal(d), -half, half - 1) + np.float32(half))

    def _fit_affine(self, blocks: F32Array, w: F32Array | None) -> U8Array:
        """The best of nine divisions of the range, 0 included, into steps, by squared error."""
        x, largest = to_lanes(sanitize(blocks), self.block_size), 2 * self.half_range - 1
        low = np.minimum(x.min(axis=0), np.float32(0))
        inverse = reciprocal(np.maximum(x.max(axis=0), np.float32(0)) - low)
        d, zero, error = np.zeros_like(low), np.zeros_like(low), np.full_like(low, np.inf)
        for start in _AFFINE_STARTS:
            step = (np.float32(largest) + start) * inverse
            new_zero = clipped_rint(-low * step, 0, largest)
            levels = clipped_rint(x * step + new_zero, 0, largest) - new_zero
            new_d = saturate_f16(divide(column_sums(weigh(x * levels, w)), column_sums(weigh(levels * levels, w))))
            new_error = residual(x, new_d * levels, w)
            adopt(new_error < error, (d, new_d), (zero, new_zero), (error, new_error))
        return self._pack(d, clipped_rint(x * reciprocal(d) + zero, 0, largest), zero)

    def _codes(self, packed: U8Array) -> F32Array:
        stored = packed[:, self.codes_start :]
        if self.bits == 4:
            stored = np.stack([stored & np.uint8(15), stored >> np.uint8(4)], axis=-1).reshape(len(stored), -1)
        return stored.astype(np.float32)

    def _pack(self, d: F32Array, codes: F32Array, *zero: F32Array) -> U8Array:
        """Pack scales ``(n,)``, codes ``(block_size, n)`` and optional zero points ``(n,)``."""
        stored = codes.T.astype(np.uint8)
        fields = [f16_bytes(d[:, None]), *(z[:, None].astype(np.uint8) for z in zero)]
        return np.concatenate([*fields, _pack_pairs(stored) if self.bits == 4 else stored], axis=-1)


def _interleave(packed: U8Array) -> U8Array:
    """From bytes with codes ``i`` and ``i + h`` to bytes with codes ``2 i`` and ``2 i + 1``."""
    even, odd = packed[:, 0::2], packed[:, 1::2]
    low, high = np.uint8(0x0F), np.uint8(0xF0)
    return np.concatenate([even & low | odd << np.uint8(4), even >> np.uint8(4) | odd & high], axis=-1)


def _pack_pairs(codes: U8Array) -> U8Array:
    """Pack ``(n, 2 h)`` codes below 16 to ``(n, h)`` bytes: codes ``2 i`` and ``2 i + 1`` share a byte."""
    return codes[:, 0::2] | codes[:, 1::2] << np.uint8(4)


for _bits, _size, _symmetric in itertools.product((4, 8), GROUP_SIZES, (True, False)):
    _name = f"INT{_bits}_G{_size}{'' if _symmetric else 'A'}"
    types.new_class(_name, (GroupFormat,), {"bits": _bits, "block_size": _size, "symmetric": _symmetric})
