"""The file format of tokens and their KV entries: what ``Session.save`` and a prefix cache's folder write.

Everything but the header is raw arrays at multiples of 4096 bytes, in the layout of the cache, so that they may be
mapped; nothing is executed or unpickled. Little-endian::

    "SPRATSAV" | version (u32) | bytes of the header (u32) | SHA-256 of the header | header (JSON) | zeros
    token ids (int32) | zeros
    rows of plane 0 | zeros
    rows of plane 1 | ...

The header names the model, the producer of the rows and their geometry, and has the size and SHA-256 of each section.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from sprat.arrays import I32Array
from sprat.errors import InputError, SavedStateError
from sprat.files import DocumentError, atomic_write, open_input, parse_json
from sprat.runtime.cache import Cache, Rows

__all__ = ["StateIdentity", "StateMessage", "read_state", "read_tokens", "write_state"]

_MAGIC, _VERSION = b"SPRATSAV", 1
_FIXED = struct.Struct("<8sII32s")
_ALIGNMENT = 4096
_MAX_HEADER_BYTES = 1 << 24  # with the messages of a session

StateMessage: TypeAlias = Mapping[str, Any]


class StateIdentity(msgspec.Struct, frozen=True):
    """Identity of KV entries: only an engine with an equal one may use them."""

    model: str  # fingerprint of its files
    producer: str  # backend, and version of its kernels
    geometry: str  # of the cache


class _Section(msgspec.Struct, frozen=True):
    nbytes: int
    sha256: str


class _Header(msgspec.Struct, frozen=True):
    identity: StateIdentity
    sections: list[_Section]  # token ids, then planes
    messages: list[dict[str, Any]]


def write_state(
    path: Path, identity: StateIdentity, tokens: Sequence[int], rows: Rows, messages: Sequence[StateMessage] = ()
) -> None:
    """Write ``tokens`` and their ``rows``; a reader sees the whole file or none.

    Raises:
        OSError: it cannot be written.
        InputError: a message is not what JSON can hold.
    """
    arrays = [np.asarray(tokens, "<i4"), *map(np.ascontiguousarray, rows)]
    sections = [_Section(array.nbytes, hashlib.sha256(_bytes(array)).hexdigest()) for array in arrays]
    try:
        header = msgspec.json.encode(_Header(identity, sections, [dict(message) for message in messages]))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: a message of the session is not what JSON can hold ({error}); edit it") from error
    begin = _FIXED.pack(_MAGIC, _VERSION, len(header), hashlib.sha256(header).digest()) + header
    parts: list[bytes | memoryview] = [begin, _padding(len(begin))]
    for array in arrays:
        parts += [_bytes(array), _padding(array.nbytes)]
    atomic_write(path, *parts)


def read_tokens(path: Path, identity: StateIdentity) -> I32Array:
    """The token ids of a file, without its rows.

    Raises:
        OSError: it cannot be read.
        SavedStateError: it is damaged, or of another identity.
    """
    with open_input(path) as file:
        header = _read_header(file, path, identity)
        return _read_tokens(file, path, header)


def read_state(path: Path, identity: StateIdentity, cache: Cache) -> tuple[I32Array, Rows, list[dict[str, Any]]]:
    """The token ids, their rows for a cache like ``cache``, and the messages of a file.

    Raises:
        OSError: it cannot be read.
        SavedStateError: it is damaged, holds NaN or Inf, or is of another identity.
    """
    with open_input(path) as file:
        header = _read_header(file, path, identity)
        tokens = _read_tokens(file, path, header)
        if len(header.sections) != 1 + len(cache.empty_rows(0)):
            raise _damaged(path, f"{len(header.sections)} sections, expected {1 + len(cache.empty_rows(0))}")
        if sum(section.nbytes for section in header.sections[1:]) != len(tokens) * cache.bytes_per_token:
            raise _damaged(path, f"rows of another size than {len(tokens):,} tokens have")
        rows = cache.empty_rows(len(tokens))
        for plane, section in zip(rows, header.sections[1:], strict=True):
            _read_section(file, path, section, plane)
    if not cache.are_finite(rows):
        raise _damaged(path, "NaN or Inf among its entries")
    return tokens, rows, header.messages


def _read_header(file: BufferedReader, path: Path, identity: StateIdentity) -> _Header:
    fixed = file.read(_FIXED.size)
    if len(fixed) < _FIXED.size or not fixed.startswith(_MAGIC):
        raise SavedStateError(f"{path}: no saved state, it does not begin with {_MAGIC.decode()}; check the path")
    _, version, n_bytes, digest = _FIXED.unpack(fixed)
    if version != _VERSION:
        raise SavedStateError(
            f"{path}: saved in version {version} of the format, expected {_VERSION}; save it again with this sprat"
        )
    data = file.read(n_bytes) if n_bytes <= _MAX_HEADER_BYTES else b""
    if len(data) != n_bytes or hashlib.sha256(data).digest() != digest:
        raise _damaged(path, "a header that does not match its SHA-256")
    try:
        header: _Header = parse_json(data, _Header)
    except DocumentError as error:
        raise _damaged(path, f"a header with errors ({error})") from error
    _check_identity(path, header.identity, identity)
    file.read(len(_padding(_FIXED.size + n_bytes)))
    _check_sizes(path, header, os.fstat(file.fileno()).st_size - file.tell())
    return header


def _check_identity(path: Path, found: StateIdentity, expected: StateIdentity) -> None:
    for name in found.__struct_fields__:
        if getattr(found, name) != getattr(expected, name):
            raise SavedStateError(
                f"{path}: saved with another {name} (found {getattr(found, name)[:80]!r}, expected "
                f"{getattr(expected, name)!r}); load what it was saved with, or process the prompt again"
            )


def _check_sizes(path: Path, header: _Header, n_bytes: int) -> None:
    """Compare the sections with the ``n_bytes`` behind the header, before anything is allocated for them."""
    if not header.sections or any(section.nbytes < 0 for section in header.sections):
        raise _damaged(path, "sections without a size")
    whole = sum(section.nbytes + len(_padding(section.nbytes)) for section in header.sections)
    if n_bytes != whole:
        raise _damaged(path, f"{n_bytes:,} bytes behind its header, of which its sections take {whole:,}")


def _read_tokens(file: BufferedReader, path: Path, header: _Header) -> I32Array:
    section = header.sections[0]
    if section.nbytes % 4 or not section.nbytes:
        raise _damaged(path, f"{section.nbytes} bytes of token ids")
    tokens = np.empty(section.nbytes // 4, "<i4")
    _read_section(file, path, section, tokens)
    return tokens.astype(np.int32, copy=False)


def _read_section(file: BufferedReader, path: Path, section: _Section, into: npt.NDArray[Any]) -> None:
    if section.nbytes != into.nbytes:
        raise _damaged(path, f"a section of {section.nbytes:,} bytes, expected {into.nbytes:,}")
    data = _bytes(into)
    if file.readinto(data) != len(data) or hashlib.sha256(data).hexdigest() != section.sha256:
        raise _damaged(path, "a section that does not match its SHA-256")
    file.read(len(_padding(section.nbytes)))


def _damaged(path: Path, what: str) -> SavedStateError:
    return SavedStateError(f"{path}: damaged: {what}; delete it, and process the prompt again")


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _padding(n_bytes: int) -> bytes:
    return bytes(-n_bytes % _ALIGNMENT)
