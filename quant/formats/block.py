"""Block formats: a fixed number of weights packed into a fixed number of bytes, one registered class per format.

A format is one class::

    class Q8_0(BlockFormat, ggml_type=8, file_type=7, block_size=32, block_bytes=2 + 32):
        def quantize_blocks(self, blocks, importance=None): ...    # (n, 32) float32 -> (n, 34) uint8
        def dequantize_blocks(self, packed): ...                   # (n, 34) uint8 -> (n, 32) float32

Defining the class registers it under its name; :func:`get_format` and :func:`format_of_type` find it.
Type numbers and layouts are ggml's (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array, U8Array
from sprat.errors import FormatError, unknown_name
from sprat.quant.formats import native
from sprat.quant.formats.shared.importance import RowImportance

__all__ = ["BlockFormat", "format_names", "format_of_type", "get_format"]


_CHUNK_WEIGHTS = 1 << 18
_F32_TYPE = 0

_BY_NAME: dict[str, BlockFormat] = {}
_BY_TYPE: dict[int, BlockFormat] = {}


class BlockFormat(ABC):
    """A block format; each subclass has one instance."""

    name: ClassVar[str]
    ggml_type: ClassVar[int]
    file_type: ClassVar[int]  # general.file_type of a file with mostly this format
    block_size: ClassVar[int]
    block_bytes: ClassVar[int]
    fallback: ClassVar[str]  # the format for rows that do not divide into blocks
    largest: ClassVar[float]  # a block of weights up to this magnitude stays finite, and none of it is clipped
    scale_fields: ClassVar[Mapping[int, float]]  # offset of a float16 in the block -> the largest code it multiplies

    def __init_subclass__(
        cls,
        *,
        ggml_type: int,
        file_type: int,
        block_size: int,
        block_bytes: int,
        fallback: str = "F16",
        largest: float = math.inf,
        scale_fields: Mapping[int, float] | None = None,
        register: bool = True,  # False for a format that is only read
    ) -> None:
        super().__init_subclass__()
        cls.name = cls.__name__
        cls.ggml_type, cls.file_type = ggml_type, file_type
        cls.block_size, cls.block_bytes, cls.fallback = block_size, block_bytes, fallback
        cls.largest, cls.scale_fields = largest, scale_fields or {}
        if not register:
            return
        assert ggml_type not in _BY_TYPE, f"{cls.name}: type {ggml_type} is used by {_BY_TYPE[ggml_type].name}"
        _BY_NAME[cls.name] = _BY_TYPE[ggml_type] = cls()

    def __repr__(self) -> str:
        return self.name

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight, scales included."""
        return 8 * self.block_bytes / self.block_size

    def divides(self, n_weights: int) -> bool:
        """Whether a row of ``n_weights`` divides into blocks."""
        return n_weights % self.block_size == 0

    def row_bytes(self, n_weights: int) -> int:
        """Bytes of one row of ``n_weights`` weights.

        Raises:
            FormatError: the row does not divide into blocks.
        """
        if not self.divides(n_weights):
            raise FormatError(
                f"{self.name}: a row of {n_weights} weights is not a multiple of its block of {self.block_size}; "
                f"use {self.fallback} for this tensor"
            )
        return n_weights // self.block_size * self.block_bytes

    def quantize(self, rows: F32Array, importance: F32Array | None = None) -> U8Array:
        """Quantize ``(..., k)`` finite float32 weights to ``(..., row_bytes(k))`` bytes.

        Args:
            rows: the weights.
            importance: of each weight's squared error, finite and at least 0, in any unit: ``(k,)`` for the columns, or
                any shape that broadcasts to that of ``rows``, such as ``(n_experts, 1, k)``. ``None`` weighs all errors
                alike. The mean square of a column's activations (llama.cpp's imatrix) is the usual one.

        Raises:
            FormatError: ``k`` does not divide into blocks; ``importance`` has another shape, or negative, infinite or
                NaN elements.
        """
        row_bytes = self.row_bytes(rows.shape[-1])
        if importance is not None:
            return self._quantize_weighted(rows, RowImportance.of(importance, rows.shape, self.name))
        blocks = np.ascontiguousarray(rows, dtype=np.float32).reshape(-1, self.block_size)
        packed = np.empty((len(blocks), self.block_bytes), np.uint8)
        if not native.convert(_F32_TYPE, self.ggml_type, blocks, packed):
            self._by_chunks(self.quantize_blocks, blocks, packed)
        return packed.reshape(*rows.shape[:-1], row_bytes)

    def dequantize(self, packed: U8Array) -> F32Array:
        """Dequantize ``(..., row_bytes(k))`` bytes to ``(..., k)`` float32 weights."""
        blocks = np.ascontiguousarray(packed).reshape(-1, self.block_bytes)
        weights = np.empty((len(blocks), self.block_size), np.float32)
        if not native.convert(self.ggml_type, _F32_TYPE, blocks, weights):
            self._by_chunks(self.dequantize_blocks, blocks, weights)
        return weights.reshape(*packed.shape[:-1], packed.shape[-1] // self.block_bytes * self.block_size)

    def bound(self, packed: U8Array) -> float:
        """An upper bound of the magnitudes of ``(..., row_bytes(k))`` bytes; NaN or infinite if a weight may be so.

        Reads only the scales of a format that names them in ``scale_fields``; dequantizes otherwise.
        """
        blocks = packed.reshape(-1, self.block_bytes)
        if not len(blocks):
            return 0.0
        if not self.scale_fields:
            return max(
                float(np.abs(self.dequantize(blocks[start : start + _CHUNK_WEIGHTS])).max())
                for start in range(0, len(blocks), _CHUNK_WEIGHTS)
            )
        return sum(_f16_absmax(blocks[:, at : at + 2]) * code for at, code in self.scale_fields.items())

    def _quantize_weighted(self, rows: F32Array, importance: RowImportance) -> U8Array:
        k = rows.shape[-1]
        flat = np.ascontiguousarray(rows, dtype=np.float32).reshape(-1, k)
        packed = np.empty((len(flat), self.row_bytes(k)), np.uint8)
        if not native.quantize(self.ggml_type, flat, importance.distinct, importance.which, packed):
            step = max(1, _CHUNK_WEIGHTS // max(1, k))
            for start in range(0, len(flat), step):
                blocks = flat[start : start + step].reshape(-1, self.block_size)
                weights = importance.blocks(start, start + step, self.block_size)
                with np.errstate(all="ignore"):
                    packed[start : start + step] = self.quantize_blocks(blocks, weights).reshape(-1, packed.shape[1])
        return packed.reshape(*rows.shape[:-1], packed.shape[1])

    def _by_chunks(
        self, convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], source: npt.NDArray[Any], out: npt.NDArray[Any]
    ) -> None:
        """Convert ``source`` to ``out`` in chunks, with temporaries of a few MiB."""
        chunk = max(1, _CHUNK_WEIGHTS // self.block_size)
        with np.errstate(all="ignore"):  # Inf and NaN have defined codes
            for start in range(0, len(source), chunk):
                out[start : start + chunk] = convert(source[start : start + chunk])

    @abstractmethod
    def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
        """Quantize ``(n, block_size)`` weights to ``(n, block_bytes)`` bytes.

        Args:
            blocks: the weights.
            importance: like ``blocks``; the largest of each block is 1, none is 0.
        """

    @abstractmethod
    def dequantize_blocks(self, packed: U8Array) -> F32Array:
        """Dequantize ``(n, block_bytes)`` bytes to ``(n, block_size)`` weights."""


def _f16_absmax(packed: U8Array) -> float:
    """The largest magnitude of ``(n, 2)`` bytes of float16; NaN counts as larger than infinity."""
    bits = np.ascontiguousarray(packed).view(np.uint16) & np.uint16(0x7FFF)
    return float(bits.max().view(np.float16))


def format_names() -> list[str]:
    """Names of all registered formats, sorted."""
    return sorted(_BY_NAME)


def get_format(name: str) -> BlockFormat:
    """The format ``name``, case-insensitive.

    Raises:
        FormatError: unknown format; the message suggests the nearest one.
    """
    try:
        return _BY_NAME[name.upper()]
    except KeyError:
        raise FormatError(unknown_name("block format", name.upper(), _BY_NAME)) from None


def format_of_type(ggml_type: int) -> BlockFormat:
    """The format with this ggml type number.

    Raises:
        FormatError: no registered format has this number.
    """
    try:
        return _BY_TYPE[ggml_type]
    except KeyError:
        known = ", ".join(f"{number} {found.name}" for number, found in sorted(_BY_TYPE.items()))
        raise FormatError(f"unknown ggml type {ggml_type}; known: {known}") from None
