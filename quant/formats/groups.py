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
from sprat.quant.formats.arithmetic import clipped_rint, divide, reciprocal, saturate_f16
from sprat.quant.formats.block import BlockFormat
from sprat.quant.formats.fit import adopt, column_sums, residual, sanitize, scale_fit, to_lanes
from sprat.quant.formats.legacy import Q4_0
from sprat.quant.formats.packing import f16_bytes, f16_values
from sprat.quant.formats.q8_0 import Q8_0

__all__ = ["GROUP_SIZES", "GroupFormat", "group_format"]

GROUP_SIZES = (32, 64, 128)

_SCALE_BYTES = 2
_FORMATS: dict[tuple[int, int, bool], GroupFormat] = {}
_Q4_0, _Q8_0 = Q4_0(), Q8_0()
_AFFINE_STARTS = tuple(np.float32(k / 4) for k in range(-4, 5))
# Levels to which the absmax is mapped
_STARTS = {4: (-8.5, -8.0, -7.5, -7.0, 7.0, 7.5), 8: (-128.0, -127.5, 127.0, 127.5)}


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
            ggml_type=-1, file_type=-1, block_size=block_size, block_bytes=block_bytes, register=False
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
        ordered = _interleave(codes) if self.bits == 4 else codes ^ np.uint8(self.half_range)
