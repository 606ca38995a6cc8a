"""The storage of KV entries, and the conversion to and from float32.

``f32`` and ``f16`` are arrays of that type. An ``int8`` row is bytes: codes in groups that share a scale, the last
group padded with zeros; the scales; the sum of each group's codes, which dot products of unsigned and signed bytes
need; and the last ``n_exact`` elements (the RoPE part of a latent) in float16::

    codes (int8) | d (f16 per group) | sums (int16 per group) | exact elements (f16)
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from sprat.alignment import ceil_div
from sprat.arrays import F32Array, U8Array
from sprat.runtime.arch.attention import CachePlane, Storage

__all__ = [
    "STORAGES",
    "EntryLayout",
    "FloatEntries",
    "Int8Entries",
    "KVEntries",
    "Storage",
    "Stored",
    "entry_layout",
    "to_float32",
]

STORAGES: tuple[Storage, ...] = ("f32", "f16", "int8")

FloatEntries: TypeAlias = npt.NDArray[np.float32 | np.float16]
Stored: TypeAlias = npt.NDArray[Any]  # of EntryLayout.dtype
_MAX_CODE = np.float32(127)
_F16_MAGNITUDE, _F16_INF = np.uint16(0x7FFF), 0x7C00  # all bits but the sign; NaN is above infinity
_DTYPES: dict[Storage, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "int8": np.dtype(np.uint8),
}


class EntryLayout(msgspec.Struct, frozen=True):
    """The layout of a row of ``n`` elements: one head's key or value, or a latent.

    Attributes:
        storage: element type.
        n: elements of a row.
        n_exact: last elements, which an int8 cache stores in float16.
        group: codes that share a scale.
    """

    storage: Storage
    n: int
    n_exact: int = 0
    group: int = 32

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the stored array."""
        return _DTYPES[self.storage]

    @property
    def width(self) -> int:
        """Elements of a stored row."""
        return self.n if self.storage != "int8" else self.n_groups * (self.group + 4) + 2 * self.n_exact

    @property
    def nbytes(self) -> int:
        """Bytes of a stored row."""
        return self.width * self.dtype.itemsize

    @property
    def n_int8(self) -> int:
        """Elements that are int8 codes in an int8 row."""
        return self.n - self.n_exact

    @property
    def n_groups(self) -> int:
        """Scales of an int8 row."""
        return ceil_div(self.n_int8, self.group)

    def store(self, rows: F32Array) -> Stored:
        """Convert float32 ``rows (..., n)`` to their stored form, ``(..., width)``."""
        if self.storage != "int8":
            return rows.astype(self.dtype)
        padding = [(0, 0)] * (rows.ndim - 1) + [(0, self.n_groups * self.group - self.n_int8)]
        groups = np.pad(rows[..., : self.n_int8], padding).reshape(*rows.shape[:-1], self.n_groups, self.group)
        scales = np.abs(groups).max(axis=-1, initial=0) / _MAX_CODE
        inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)
        with np.errstate(invalid="ignore"):  # NaN and Inf propagate through the scale
            codes = np.nan_to_num(np.rint(groups * inverse[..., None])).astype(np.int8)
        sums = codes.sum(axis=-1, dtype=np.int16)
        exact = rows[..., self.n_int8 :].astype(np.float16)
        parts = codes.reshape(*rows.shape[:-1], -1), scales.astype(np.float16), sums, exact
        return np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts], axis=-1)

    def is_finite(self, stored: Stored) -> bool:
        """Whether stored rows hold neither NaN nor Inf; of int8 rows, whether scales and exact elements do not."""
        if self.storage != "int8":
            return _are_finite(stored)
        scales = self.n_groups * self.group
        exact = self.width - 2 * self.n_exact
        floats = (stored[..., scales : scales + 2 * self.n_groups], stored[..., exact:])
        return all(_are_finite(np.ascontiguousarray(part).view(np.float16)) for part in floats)

    def view(self, stored: Stored) -> KVEntries:
        """Stored rows as kernel arguments; no copy."""
        return stored if self.storage != "int8" else Int8Entries(stored, self)


def _are_finite(values: FloatEntries) -> bool:
    """As ``np.isfinite(values).all()``, which converts each float16 to float32 before it looks at it."""
    if values.dtype != np.float16:
        return bool(np.isfinite(values).all())
    magnitudes = np.ascontiguousarray(values).view(np.uint16) & _F16_MAGNITUDE
    return int(magnitudes.max(initial=0)) < _F16_INF


def entry_layout(plane: CachePlane, storage: Storage) -> EntryLayout:
    """The layout of a row of ``plane`` in a cache of ``storage``."""
    return EntryLayout(storage, plane.width, n_exact=plane.n_exact, group=plane.group)


class Int8Entries(msgspec.Struct, frozen=True, eq=False):
    """KV entries in int8, a view of a cache: ``packed`` is ``(..., layout.width)``."""

    packed: U8Array
    layout: EntryLayout

    def __getitem__(self, index: int) -> Int8Entries:
        """The entries of one head."""
        return Int8Entries(self.packed[index], self.layout)

    def dequantize(self) -> F32Array:
        """The elements as float32, ``(..., layout.n)``."""
        layout, shape = self.layout, self.packed.shape[:-1]
        at, end = layout.n_groups * layout.group, layout.width - 2 * layout.n_exact
        codes = self.packed[..., :at].view(np.int8).reshape(*shape, layout.n_groups, layout.group)
        scales = np.ascontiguousarray(self.packed[..., at : at + 2 * layout.n_groups]).view(np.float16)
        values = (codes * scales[..., None].astype(np.float32)).reshape(*shape, -1)[..., : layout.n_int8]
        exact = np.ascontiguousarray(self.packed[..., end:]).view(np.float16)
        return np.concatenate([values, exact.astype(np.float32)], axis=-1)


KVEntries: TypeAlias = FloatEntries | Int8Entries


def to_float32(entries: KVEntries) -> F32Array:
    """Entries of any storage as float32; not a copy if they are float32."""
    return entries.dequantize() if isinstance(entries, Int8Entries) else entries.astype(np.float32, copy=False)
