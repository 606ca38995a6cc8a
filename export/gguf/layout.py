"""A GGUF file before it is written: the header and every tensor's offset, from shapes and formats alone.

::

    "GGUF" | version 3 | n_tensors | n_keys       4 + 4 + 8 + 8 bytes
    key, type, value                              n_keys times
    name, n_dims, ne[n_dims], ggml type, offset   n_tensors times; offsets are relative to the data section
    padding to a multiple of the alignment
    tensor, padding; tensor, padding; …           each tensor begins on a multiple of the alignment

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Writer: :mod:`sprat.export.write.writer`.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sprat.alignment import round_up
from sprat.errors import ExportError
from sprat.export.write.layout import PlacedTensor
from sprat.quant.formats import BlockFormat
from sprat.runtime.files.gguf_header import DEFAULT_ALIGNMENT, MAGIC, ValueType
from sprat.runtime.files.gguf_parts import SPLIT_KEYS
from sprat.runtime.files.split_name import part_path

__all__ = ["GGUFLayout", "TensorEntry", "gguf_layout", "joint_digest", "named_layouts", "split_layouts"]

_ALIGNMENT_KEY = "general.alignment"
_MAX_ALIGNMENT = 2 << 20  # a huge page; the padding is written
_MAX_KEY_BYTES = 65_535  # from the specification
_FIXED = "<4sIQQ"
_FIXED_BYTES = struct.calcsize(_FIXED)
_LENGTH = struct.Struct("<Q")  # of a string
_MAX_PARTS = 65_535  # split.count is a UINT16
_MAX_NAME_BYTES = 63  # GGML_MAX_NAME without the final NUL
_VALUE_TYPES = {  # NumPy kind and size -> GGUF value type
    "u1": ValueType.UINT8,
    "i1": ValueType.INT8,
    "u2": ValueType.UINT16,
    "i2": ValueType.INT16,
    "u4": ValueType.UINT32,
    "i4": ValueType.INT32,
    "f4": ValueType.FLOAT32,
    "b1": ValueType.BOOL,
    "u8": ValueType.UINT64,
    "i8": ValueType.INT64,
    "f8": ValueType.FLOAT64,
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """An entry of the tensor table; ``shape`` is in C order, blocks run along its last axis."""

    name: str
    shape: tuple[int, ...]
    format: BlockFormat

    @property
    def nbytes(self) -> int:
        """Size of all blocks."""
        return math.prod(self.shape[:-1]) * self.format.row_bytes(self.shape[-1])


@dataclass(frozen=True, slots=True)
class GGUFLayout:
    """A whole file except the weights."""

    header: bytes  # up to the first tensor, padding included
    tensors: tuple[PlacedTensor[TensorEntry], ...]
    alignment: int

    @property
    def nbytes(self) -> int:
        """Size of the file; the last tensor is padded too."""
        return self.tensors[-1].end if self.tensors else len(self.header)

    def digest(self) -> str:
        """SHA-256 of the header, which contains metadata, names, shapes, formats and offsets."""
        return hashlib.sha256(self.header).hexdigest()


def gguf_layout(
    metadata: Mapping[str, Any], tensors: Sequence[TensorEntry], *, alignment: int = DEFAULT_ALIGNMENT
) -> GGUFLayout:
    """Lay out a file of ``tensors`` in this order.

    Args:
        metadata: key -> str, bool, int (UINT32, or UINT64 where it needs more), float (FLOAT32), NumPy scalar or array
            of any type, or a list of one kind (of int: INT32, as llama.cpp expects of token types).
        tensors: the tensor table.
        alignment: in bytes; every tensor begins on a multiple of it. ``general.alignment`` is written unless it is 32.

    Raises:
        ExportError: an alignment, keys, values or names that GGUF does not allow; the message lists all of them.
    """
    _check(metadata, tensors, alignment)
    return _layout(_with_alignment(metadata, alignment), tensors, alignment)


def split_layouts(
    metadata: Mapping[str, Any], tensors: Sequence[TensorEntry], *, alignment: int, max_bytes: int
) -> tuple[GGUFLayout, ...]:
    """Lay out ``tensors`` in this order over files of at most ``max_bytes``, as ``llama-gguf-split`` does.

    The first file has all keys, the others only those of the split. A model that fits into one file is not split.

    Args:
        metadata: the keys, as for :func:`gguf_layout`.
        tensors: the tensor table.
        alignment: of the tensors in every file, in bytes.
        max_bytes: largest size of a file, header included.

    Raises:
        ExportError: as for :func:`gguf_layout`; or the keys or a tensor do not fit into a file of ``max_bytes``.
    """
    whole = gguf_layout(metadata, tensors, alignment=alignment)
    if whole.nbytes <= max_bytes:
        return (whole,)
    first = _with_alignment(metadata, alignment) | _split_keys(0, 1, len(tensors))
    others = _with_alignment({}, alignment) | _split_keys(0, 1, len(tensors))
    parts = _fill_parts(tensors, (len(_pairs(first)), len(_pairs(others))), alignment, max_bytes)
    layouts = tuple(
        _layout((others if number else first) | _split_keys(number, len(parts), len(tensors)), part, alignment)
        for number, part in enumerate(parts)
    )
    _check_parts(layouts, max_bytes)
    return layouts


def named_layouts(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[TensorEntry],
    alignment: int,
    split_bytes: int | None = None,
) -> dict[Path, GGUFLayout]:
    """Path -> layout: ``path`` alone, or its parts by llama.cpp's convention if ``split_bytes`` is given and exceeded.

    Raises:
        ExportError: as :func:`gguf_layout` and :func:`split_layouts`.
    """
    if split_bytes is None:
        return {path: gguf_layout(metadata, tensors, alignment=alignment)}
    layouts = split_layouts(metadata, tensors, alignment=alignment, max_bytes=split_bytes)
    if len(layouts) == 1:
        return {path: layouts[0]}
    return {part_path(path, number, len(layouts)): layout for number, layout in enumerate(layouts, 1)}


def joint_digest(layouts: Iterable[GGUFLayout]) -> str:
    """The digest of one layout, or of the digests of several."""
    digests = [layout.digest() for layout in layouts]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _fill_parts(
    tensors: Sequence[TensorEntry], key_bytes: tuple[int, int], alignment: int, max_bytes: int
) -> list[list[TensorEntry]]:
    """The tensors of each part: as many as fit, at least one except in the first.

    Args:
        tensors: the tensor table.
        key_bytes: size of the keys of the first part and of the others.
        alignment: of the tensors.
        max_bytes: of a part.
    """
    parts: list[list[TensorEntry]] = [[]]
    n_header, n_data = _FIXED_BYTES + key_bytes[0], 0
    for tensor in tensors:
        n_info, n_padded = len(_info(tensor, 0)), round_up(tensor.nbytes, alignment)
        if round_up(n_header + n_info, alignment) + n_data + n_padded > max_bytes and (parts[-1] or not parts[1:]):
            parts.append([])
            n_header, n_data = _FIXED_BYTES + key_bytes[1], 0
        parts[-1].append(tensor)
        n_header, n_data = n_header + n_info, n_data + n_padded
    return parts


def _with_alignment(metadata: Mapping[str, Any], alignment: int) -> dict[str, Any]:
    keys = {key: value for key, value in metadata.items() if key != _ALIGNMENT_KEY}
    return keys if alignment == DEFAULT_ALIGNMENT else keys | {_ALIGNMENT_KEY: alignment}


def _split_keys(number: int, count: int, n_tensors: int) -> dict[str, Any]:
    """The three keys with llama.cpp's types."""
    values = (np.uint16(number), np.uint16(min(count, _MAX_PARTS)), np.int32(n_tensors))
    return dict(zip(SPLIT_KEYS, values, strict=True))


def _check_parts(layouts: Sequence[GGUFLayout], max_bytes: int) -> None:
    largest = max(layouts, key=lambda layout: layout.nbytes)
    if largest.nbytes > max_bytes:
        name = largest.tensors[0].tensor.name if largest.tensors else "the metadata"
        raise ExportError(
            f"{name} needs a file of {largest.nbytes:,} bytes, and --split allows {max_bytes:,}; allow larger files"
        )
    if len(layouts) > _MAX_PARTS:
        raise ExportError(f"--split {max_bytes} makes {len(layouts):,} files, at most {_MAX_PARTS}; allow larger files")


def _layout(keys: Mapping[str, Any], tensors: Sequence[TensorEntry], alignment: int) -> GGUFLayout:
    pairs = _pairs(keys)
    offsets = [0, *accumulate(round_up(tensor.nbytes, alignment) for tensor in tensors)]
    infos = b"".join(map(_info, tensors, offsets))
    header = struct.pack(_FIXED, MAGIC, 3, len(tensors), len(keys)) + pairs + infos
    header += bytes(-len(header) % alignment)
    edges = pairwise(len(header) + offset for offset in offsets)
    placed = tuple(PlacedTensor(tensor, begin, end) for tensor, (begin, end) in zip(tensors, edges, strict=True))
    return GGUFLayout(header, placed, alignment)


def _pairs(keys: Mapping[str, Any]) -> bytes:
    return b"".join(_string(key) + _value(value) for key, value in keys.items())


def _check(metadata: Mapping[str, Any], tensors: Sequence[TensorEntry], alignment: int) -> None:
    problems = [*_key_problems(metadata), *_name_problems(tensors)]
    if not tensors:
        problems.append("there are no tensors")
    if not 8 <= alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        problems.append(f"alignment {alignment} is not a power of two from 8 to {_MAX_ALIGNMENT}")
    if problems:
        raise ExportError("cannot be written as GGUF: " + "; ".join(problems))


def _key_problems(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key, value in metadata.items():
        if not (key.isascii() and 0 < len(key) <= _MAX_KEY_BYTES):
            yield f"key {key!r} is not ASCII of at most {_MAX_KEY_BYTES} bytes"
        if not _is_value(value):
            yield f"key {key!r}: {type(value).__name__} cannot be stored"


def _name_problems(tensors: Sequence[TensorEntry]) -> Iterator[str]:
    for name, count in Counter(tensor.name for tensor in tensors).items():
        if count > 1:
            yield f"tensor {name!r} occurs {count} times"
        if len(name.encode()) > _MAX_NAME_BYTES:
            yield f"tensor {name!r} has a name of over {_MAX_NAME_BYTES} bytes"


def _is_value(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.str[1:] in _VALUE_TYPES
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        kinds = set(map(type, value))
        return len(kinds) <= 1 and kinds <= {str, int, float, bool}
    return isinstance(value, str | bool | int | float | np.generic)


def _value(value: Any) -> bytes:
    """The value type, then the value's bytes."""
    if isinstance(value, str):
        return struct.pack("<I", ValueType.STRING) + _string(value)
    if isinstance(value, Sequence | np.ndarray):
        return struct.pack("<I", ValueType.ARRAY) + _array(value)
    scalar = np.asarray(_scalar(value))
    return struct.pack("<I", _VALUE_TYPES[scalar.dtype.str[1:]]) + _little_endian(scalar)


def _array(values: Sequence[Any] | np.ndarray[Any, Any]) -> bytes:
    if not isinstance(values, np.ndarray):
        if values and isinstance(values[0], str):
            return struct.pack("<IQ", ValueType.STRING, len(values)) + _strings(values)
        values = np.asarray(values, dtype=_array_type(values))
    return struct.pack("<IQ", _VALUE_TYPES[values.dtype.str[1:]], len(values)) + _little_endian(values)


def _little_endian(values: np.ndarray[Any, Any]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _array_type(values: Sequence[Any]) -> type[np.generic]:
    if values and isinstance(values[0], bool):
        return np.bool_
    return np.float32 if values and isinstance(values[0], float) else np.int32


def _scalar(value: Any) -> np.generic:
    if isinstance(value, np.generic):
        return value
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, float):
        return np.float32(value)
    if value < 0:
        return np.int32(value) if value >= -(1 << 31) else np.int64(value)
    return np.uint32(value) if value < 1 << 32 else np.uint64(value)


def _string(text: str) -> bytes:
    return _strings([text])


def _strings(texts: Iterable[str]) -> bytes:
    """Each with its length; of 100,000 tokens, without a call of Python for each."""
    # A vocabulary may contain bytes that are not UTF-8.
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    return b"".join(chain.from_iterable(zip(map(_LENGTH.pack, map(len, encoded)), encoded, strict=True)))


def _info(tensor: TensorEntry, offset: int) -> bytes:
    ne = tensor.shape[::-1]
    return _string(tensor.name) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, tensor.format.ggml_type, offset)
