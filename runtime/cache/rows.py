"""What a cache keeps a row of numbers as, and the way there and back.

``f32`` and ``f16`` are arrays of that type. An ``int8`` row is bytes: blocks of Q8_0 (32 numbers to a float16 scale,
the last one filled up with zeros), and behind them, in float16, the numbers that int8 would spoil::

    d (f16) | 32 codes (int8) | d | 32 codes | ... | exact numbers (f16)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sprat.quant.formats import get_format
from sprat.quant.formats.block import F32Array, U8Array

__all__ = ["STORAGES", "FloatRows", "Int8Rows", "RowLayout", "Rows", "Storage", "Stored", "widen"]

Storage = Literal["f32", "f16", "int8"]
STORAGES: tuple[Storage, ...] = ("f32", "f16", "int8")

FloatRows: TypeAlias = npt.NDArray[np.float32 | np.float16]
Stored: TypeAlias = npt.NDArray[Any]  # of RowLayout.dtype
_Q8_0 = get_format("Q8_0")
_DTYPES: dict[Storage, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "int8": np.dtype(np.uint8),
}


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How a row of ``n`` numbers is stored.

    Attributes:
        storage: what a number is kept as.
        n: numbers of a row.
        n_exact: how many of them, the last ones, stay in float16 where the others are int8.
    """

    storage: Storage
    n: int
    n_exact: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array that keeps rows."""
        return _DTYPES[self.storage]

    @property
    def width(self) -> int:
        """Elements of a stored row."""
        return self.n if self.storage != "int8" else _Q8_0.row_bytes(self._n_padded) + 2 * self.n_exact

    @property
    def nbytes(self) -> int:
        """Bytes of a stored row."""
        return self.width * self.dtype.itemsize

    @property
    def _n_int8(self) -> int:
        return self.n - self.n_exact

    @property
    def _n_padded(self) -> int:
        return -(-self._n_int8 // _Q8_0.block_size) * _Q8_0.block_size

    def store(self, rows: F32Array) -> Stored:
        """``rows (..., n)`` as they are kept, ``(..., width)``."""
        if self.storage != "int8":
            return rows.astype(self.dtype)
        padding = [(0, 0)] * (rows.ndim - 1) + [(0, self._n_padded - self._n_int8)]
        codes = _Q8_0.quantize(np.pad(rows[..., : self._n_int8], padding))
        exact = np.ascontiguousarray(rows[..., self._n_int8 :], np.float16).view(np.uint8)
        return np.concatenate([codes, exact], axis=-1)

    def view(self, stored: Stored) -> Rows:
        """Stored rows as kernels take them; no copy."""
        return stored if self.storage != "int8" else Int8Rows(stored, self)


@dataclass(frozen=True, slots=True, eq=False)
class Int8Rows:
    """Rows in int8, a view of a cache: ``packed`` is ``(..., layout.width)``."""

    packed: U8Array
    layout: RowLayout

    def __getitem__(self, index: int) -> Int8Rows:
        """The rows of one head."""
        return Int8Rows(self.packed[index], self.layout)

    def widen(self) -> F32Array:
        """The numbers, ``(..., layout.n)``."""
        layout, split = self.layout, self.layout.width - 2 * self.layout.n_exact
        codes = _Q8_0.dequantize(np.ascontiguousarray(self.packed[..., :split]))[..., : layout.n - layout.n_exact]
        exact = np.ascontiguousarray(self.packed[..., split:]).view(np.float16)
        return np.concatenate([codes, exact.astype(np.float32)], axis=-1)


Rows: TypeAlias = FloatRows | Int8Rows


def widen(rows: Rows) -> F32Array:
    """Rows of any storage as float32; no copy where they are."""
    return rows.widen() if isinstance(rows, Int8Rows) else rows.astype(np.float32, copy=False)
