"""The parser of a GGUF header, which treats the file as untrusted.

The layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian::

    magic "GGUF" u32 | version u32 | n_tensors u64 | n_keys u64
    n_keys    times: key string | value type u32 | value
    n_tensors times: name string | n_dims u32 | dims u64 * n_dims | ggml type u32 | offset u64
    padding to the alignment, then the data that the offsets count from

A string is a u64 length and that many bytes of UTF-8; an array is an element type, a u64 count, and the elements.
Every length is compared with the remaining bytes before anything of that length is allocated, so memory use is bounded
by the size of the file. Invalid data is a :class:`ModelFileError` with the offset of the byte.
"""

from __future__ import annotations

import enum
import math
import struct
from typing import Any, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt

from sprat.alignment import round_up
from sprat.errors import ModelFileError
from sprat.runtime.files.gguf_strings import short_strings

__all__ = ["DEFAULT_ALIGNMENT", "MAGIC", "Header", "TensorRecord", "ValueType", "read_header"]

MAGIC = b"GGUF"
_POINTER = b"vers"  # of "version https://git-lfs.github.com/spec/v1"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4
MAX_KEY_BYTES = 65_535
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 20
MAX_WEIGHTS = 1 << 63  # elements of one tensor; ggml counts them in an int64
MAX_ELEMENTS = 1 << 24  # of one metadata array; the largest published vocabularies have 2^18
_SINGLY = 4  # strings that are read one by one after those that are read at once
_WITHOUT = 1 << 13  # the same where few are read at once: a window costs as much as these
MIN_KEY_BYTES = 8 + 4 + 1  # length of the name, type, smallest value
MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8  # length of the name, n_dims, one dim, type, offset

DAMAGED = "the file is damaged or incomplete: download or export it again"


class ValueType(enum.IntEnum):
    """Types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_SCALARS: dict[ValueType, np.dtype[Any]] = {
    ValueType.UINT8: np.dtype("<u1"),
    ValueType.INT8: np.dtype("<i1"),
    ValueType.UINT16: np.dtype("<u2"),
    ValueType.INT16: np.dtype("<i2"),
    ValueType.UINT32: np.dtype("<u4"),
    ValueType.INT32: np.dtype("<i4"),
    ValueType.FLOAT32: np.dtype("<f4"),
    ValueType.BOOL: np.dtype("?"),
    ValueType.UINT64: np.dtype("<u8"),
    ValueType.INT64: np.dtype("<i8"),
    ValueType.FLOAT64: np.dtype("<f8"),
}
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class TensorRecord(msgspec.Struct, frozen=True):
    """An entry of the tensor table; ``shape`` in C order, ``offset`` counted from the start of the data."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    at: int  # offset of the entry in the file, for messages


class Header(msgspec.Struct, frozen=True):
    """Header of a GGUF: metadata keys and tensor table."""

    version: int
    metadata: dict[str, Any]  # values are numbers, str or bool; arrays are list[str] or NumPy arrays
    value_types: dict[str, tuple[ValueType, ...]]  # (type,) or (ARRAY, element type)
    tensors: list[TensorRecord]
    alignment: int
    data_start: int


class _Cursor:
    """A read position in the file that never passes its end."""

    def __init__(self, data: memoryview, path: str) -> None:
        self.data, self.path, self.at = data, path, 0

    def fail(self, at: int, found: str, expected: str, remedy: str = DAMAGED) -> NoReturn:
        raise ModelFileError(f"{self.path}: byte {at}: found {found}, expected {expected}; {remedy}")

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, n_bytes: int, what: str) -> memoryview:
        """Read ``n_bytes``; ``what`` they are is for messages."""
        if n_bytes > self.left:
            self.fail(self.at, f"{self.left} bytes to the end of the file", f"{n_bytes} bytes of {what}")
        start, self.at = self.at, self.at + n_bytes
        return self.data[start : self.at]

    def u32(self, what: str) -> int:
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack(self.take(8, what))[0])

    def count(self, what: str, *, min_bytes: int, at_most: int) -> int:
        """Read the u64 count of the ``what`` that follow, each of which takes at least ``min_bytes``."""
        at, found = self.at, self.u64(f"the number of {what}")
        limit = min(self.left // min_bytes, at_most)
        if found > limit:
            self.fail(at, f"a count of {found} {what}", f"at most {limit} in the bytes that follow")
        return found

    def text(self, what: str) -> str:
        return self._text(self.u64(f"the length of {what}"), what)

    def key(self) -> str:
        """Read a metadata key; an empty or very long one is an error."""
        at, n_bytes = self.at, self.u64("the length of a key")
        if not 1 <= n_bytes <= MAX_KEY_BYTES:
            self.fail(at, f"a key of {n_bytes} bytes", f"1 to {MAX_KEY_BYTES}")
        return self._text(n_bytes, "a key")

    def _text(self, n_bytes: int, what: str) -> str:
        at = self.at
        try:
            return str(self.take(n_bytes, what), "utf-8")
        except UnicodeDecodeError as error:
            self.fail(at, f"bytes in {what} that are not UTF-8 ({error.reason})", "UTF-8 text")

    def value_type(self, what: str) -> ValueType:
        at, found = self.at, self.u32(f"the type of {what}")
        try:
            return ValueType(found)
        except ValueError:
            self.fail(at, f"value type {found} for {what}", f"0 to {max(ValueType)}")


def read_header(data: memoryview, path: str) -> Header:
    """Parse and check everything before the tensor data.

    Args:
        data: the whole file.
        path: the file's name, for messages.

    Raises:
        ModelFileError: the file is not a GGUF of version 2 or 3, is truncated, or declares impossible sizes.
    """
    cursor = _Cursor(data, path)
    version = _read_version(cursor)
    n_tensors = cursor.count("tensors", min_bytes=MIN_TENSOR_BYTES, at_most=MAX_TENSORS)
    n_keys = cursor.count("metadata keys", min_bytes=MIN_KEY_BYTES, at_most=MAX_KEYS)
    metadata, value_types = _read_metadata(cursor, n_keys)
    alignment = _alignment(metadata, path)
    tensors = _read_tensors(cursor, n_tensors)
    data_start = round_up(cursor.at, alignment)
    return Header(version, metadata, value_types, tensors, alignment, data_start)


def _read_version(cursor: _Cursor) -> int:
    magic = bytes(cursor.take(4, "the magic number"))
    if magic == _POINTER:
        cursor.fail(0, f"{magic!r}", f"{MAGIC!r}", "a Git-LFS pointer in place of the content: run `git lfs pull`")
    if magic != MAGIC:
        cursor.fail(0, f"{magic!r}", f"{MAGIC!r}", "this is not a GGUF file; of a checkpoint, pass the folder")
    version = cursor.u32("the version")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        remedy = "it is big-endian: export it again on a little-endian machine" if swapped else "export it again"
        cursor.fail(4, f"GGUF version {version}", f"one of {VERSIONS}", remedy)
    return version


def _read_metadata(cursor: _Cursor, n_keys: int) -> tuple[dict[str, Any], dict[str, tuple[ValueType, ...]]]:
    metadata: dict[str, Any] = {}
    value_types: dict[str, tuple[ValueType, ...]] = {}
    for _ in range(n_keys):
        at, key = cursor.at, cursor.key()
        if key in metadata:
            cursor.fail(at, f"a second key {key!r}", "each key once")
        kind = cursor.value_type(f"{key!r}")
        if kind is ValueType.ARRAY:
            element = cursor.value_type(f"the elements of {key!r}")
            metadata[key], value_types[key] = _array(cursor, key, element), (kind, element)
        else:
            metadata[key], value_types[key] = _scalar(cursor, key, kind), (kind,)
    return metadata, value_types


def _scalar(cursor: _Cursor, key: str, kind: ValueType) -> Any:
    if kind is ValueType.STRING:
        return cursor.text(f"the value of {key!r}")
    return _numbers(cursor, key, kind, 1)[0].item()


def _array(cursor: _Cursor, key: str, kind: ValueType) -> Any:
    what = f"elements of {key!r}"
    if kind is ValueType.ARRAY:
        cursor.fail(cursor.at, f"an array of arrays in {key!r}", "an array of numbers or strings")
    if kind is ValueType.STRING:
        return _strings(cursor, key, cursor.count(what, min_bytes=8, at_most=MAX_ELEMENTS))
    n_elements = cursor.count(what, min_bytes=_SCALARS[kind].itemsize, at_most=MAX_ELEMENTS)
    return _numbers(cursor, key, kind, n_elements)


def _numbers(cursor: _Cursor, key: str, kind: ValueType, count: int) -> npt.NDArray[Any]:
    at, dtype = cursor.at, _SCALARS[kind]
    raw = np.frombuffer(cursor.take(count * dtype.itemsize, f"values of {key!r}"), np.uint8)
    if kind is ValueType.BOOL and raw.size and raw.max() > 1:
        cursor.fail(at, f"a boolean {raw.max()} in {key!r}", "0 or 1")
    return raw.view(dtype).copy()  # a copy, so that the array does not keep the file mapped


def _strings(cursor: _Cursor, key: str, n_strings: int) -> list[str]:
    """The elements of a string array: most windows of the file are read at once, what they cannot have one by one."""
    strings: list[str] = []
    while (left := n_strings - len(strings)) > 0:
        found, cursor.at = short_strings(cursor.data, cursor.at, left)
        strings += found
        start, n_singly = len(strings), _SINGLY if len(found) > _SINGLY else _WITHOUT
        strings += [cursor.text(f"string {start + i} of {key!r}") for i in range(min(n_singly, left - len(found)))]
    return strings


def _alignment(metadata: dict[str, Any], path: str) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise ModelFileError(
            f"{path}: general.alignment is {alignment!r}, expected a power of two such as 32; {DAMAGED}"
        )
    return alignment


def _read_tensors(cursor: _Cursor, n_tensors: int) -> list[TensorRecord]:
    seen: set[str] = set()
    tensors: list[TensorRecord] = []
    for _ in range(n_tensors):
        tensors.append(record := _read_tensor(cursor))
        if record.name in seen:
            cursor.fail(record.at, f"a second tensor {record.name!r}", "each tensor once")
        seen.add(record.name)
    return tensors


def _read_tensor(cursor: _Cursor) -> TensorRecord:
    at = cursor.at
    name = cursor.text("the name of a tensor")
    what = f"tensor {name!r}"
    n_dims = cursor.u32(f"the number of dims of {what}")
    if not 1 <= n_dims <= MAX_DIMS:
        cursor.fail(at, f"{what} with {n_dims} dims", f"1 to {MAX_DIMS}")
    dims = struct.unpack(f"<{n_dims}Q", cursor.take(8 * n_dims, f"the dims of {what}"))
    if not 1 <= math.prod(dims) < MAX_WEIGHTS:
        cursor.fail(at, f"{what} with dims {dims}", f"a product from 1 to {MAX_WEIGHTS - 1}")
    ggml_type = cursor.u32(f"the type of {what}")
    offset = cursor.u64(f"the offset of {what}")
    return TensorRecord(name, dims[::-1], ggml_type, offset, at)
