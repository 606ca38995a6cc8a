"""The file format of tokens and their KV entries: what ``Session.save`` and a prefix cache's folder write.

Everything but the header is raw arrays at multiples of 4096 bytes, in the layout of the cache: a reader maps them and
copies rows into a cache from there. Nothing is executed or unpickled. Little-endian::

    "SPRATSAV" | version (u32) | bytes of the header (u32) | SHA-256 of the header | header (JSON) | zeros
    token ids (int32) | zeros
    rows of plane 0 | zeros
    rows of plane 1 | ...

The header names the model, the producer of the rows and their geometry, and has the size and SHA-256 of each section.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from sprat.arrays import I32Array
from sprat.errors import InputError, PromptError, SavedStateError
from sprat.files import DocumentError, atomic_write, open_input, parse_json
from sprat.native import core
from sprat.runtime.cache import Cache
from sprat.runtime.files.mapped_file import GuardedMap
from sprat.runtime.prefix.entries import Entries

__all__ = ["StateIdentity", "StateMessage", "read_state", "read_tokens", "write_state"]

_MAGIC, _VERSION = b"SPRATSAV", 1
_FIXED = struct.Struct("<8sII32s")
_ALIGNMENT = 4096
_MAX_HEADER_BYTES = 1 << 24  # with the messages of a session
_BLOCK_BYTES = 1 << 20  # hashed, looked through for NaN while it is in the CPU's cache, and released

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
    path: Path,
    identity: StateIdentity,
    tokens: Sequence[int],
    pieces: Sequence[Entries],
    messages: Sequence[StateMessage] = (),
) -> None:
    """Write ``tokens`` and their entries, in consecutive ``pieces``; a reader sees the whole file or none.

    Entries are written from where they are, without a copy.

    Raises:
        OSError: it cannot be written.
        InputError: a message is not what JSON can hold.
        SavedStateError: the file that a piece is mapped from changed.
    """
    sections = [[_bytes(np.asarray(tokens, "<i4"))]]
    sections += [list(_strips(pieces, plane)) for plane in range(len(pieces[0].rows))]
    described = [_describe(strips) for strips in sections]
    for piece in pieces:
        piece.check_unchanged()  # or what has the right hash now was wrong before
    try:
        header = msgspec.json.encode(_Header(identity, described, [dict(message) for message in messages]))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: a message of the session is not what JSON can hold ({error}); edit it") from error
    begin = _FIXED.pack(_MAGIC, _VERSION, len(header), hashlib.sha256(header).digest()) + header
    parts: list[bytes | memoryview] = [begin, _padding(len(begin))]
    for strips, section in zip(sections, described, strict=True):
        parts += [*strips, _padding(section.nbytes)]
    atomic_write(path, *parts)


def _strips(pieces: Sequence[Entries], plane: int) -> Iterator[memoryview]:
    """The rows of a plane in the order of the file, as far as they are contiguous."""
    for layer, head in np.ndindex(pieces[0].rows[plane].shape[:2]):
        for piece in pieces:
            yield _bytes(piece.rows[plane][layer, head])


def _describe(strips: Sequence[memoryview]) -> _Section:
    digest = hashlib.sha256()
    for strip in strips:
        digest.update(strip)
    return _Section(sum(map(len, strips)), digest.hexdigest())


def read_tokens(path: Path, identity: StateIdentity) -> I32Array:
    """The token ids of a file, without its rows.

    Raises:
        OSError: it cannot be read.
        SavedStateError: it is damaged, or of another identity.
    """
    with open_input(path) as file:
        header = _read_header(file, path, identity)
        return _read_tokens(file, path, header)


def read_state(
    path: Path, identity: StateIdentity, cache: Cache, most_tokens: int | None = None
) -> tuple[I32Array, Entries, list[dict[str, Any]]]:
    """The token ids, their entries for a cache like ``cache``, and the messages of a file.

    The entries are mapped, and have been compared with their hashes; without the native core, which guards maps, they
    are read.

    Raises:
        OSError: it cannot be read.
        PromptError: it has more than ``most_tokens`` tokens.
        SavedStateError: it is damaged, holds NaN or Inf, or is of another identity.
    """
    with open_input(path) as file:
        header = _read_header(file, path, identity)
        n_tokens = header.sections[0].nbytes // 4
        if most_tokens is not None and n_tokens > most_tokens:
            raise PromptError(
                f"{path}: the saved session holds {n_tokens} tokens, the context has room for {most_tokens}; load the "
                "model with a larger context"
            )
        tokens = _read_tokens(file, path, header)
        entries = _entries(file, path, header.sections[1:], cache, n_tokens)
    for plane, section in enumerate(header.sections[1:]):
        _check_plane(path, plane, entries, section, cache)
    return tokens, entries, header.messages


def _entries(file: BufferedReader, path: Path, sections: Sequence[_Section], cache: Cache, n_tokens: int) -> Entries:
    """The rows of the sections that begin at the position of ``file``, unread."""
    planes, at = cache.empty_rows(0), file.tell()
    if len(sections) != len(planes):
        raise _damaged(path, f"{1 + len(sections)} sections, expected {1 + len(planes)}")
    if sum(section.nbytes for section in sections) != n_tokens * cache.bytes_per_token:
        raise _damaged(path, f"rows of another size than {n_tokens:,} tokens have")
    if not n_tokens:  # a session before its first turn
        return Entries(planes)
    whole = _contents(file, path)
    rows = []
    for plane, section in zip(planes, sections, strict=True):
        shape = (*plane.shape[:2], n_tokens, plane.shape[3])
        n = math.prod(shape)
        if section.nbytes != n * plane.itemsize:
            raise _damaged(path, f"a section of {section.nbytes:,} bytes, expected {n * plane.itemsize:,}")
        if len(whole) < at + section.nbytes:
            raise _damaged(path, f"{len(whole):,} bytes, and it had more a moment ago")
        rows.append(np.frombuffer(whole, plane.dtype, n, offset=at).reshape(shape))
        at += section.nbytes + len(_padding(section.nbytes))
    return Entries(tuple(rows), whole if isinstance(whole, GuardedMap) else None)


def _contents(file: BufferedReader, path: Path) -> GuardedMap | bytes:
    if core is None:
        file.seek(0)
        return file.read()
    try:
        return GuardedMap.of_file(file, path)
    except ValueError as error:
        raise _damaged(path, "no bytes, and it had some a moment ago") from error


def _check_plane(path: Path, plane: int, entries: Entries, section: _Section, cache: Cache) -> None:
    """Compare the rows of a plane with their hash, and look for NaN and Inf, in one pass."""
    rows = entries.rows[plane].reshape(-1, entries.rows[plane].shape[-1])
    n_together = max(1, _BLOCK_BYTES // (rows.shape[1] * rows.itemsize))
    digest, is_finite = hashlib.sha256(), True
    for start in range(0, len(rows), n_together):
        block = rows[start : start + n_together]
        digest.update(_bytes(block))
        is_finite = is_finite and cache.is_finite(plane, block)
        entries.release_pages()
    if digest.hexdigest() != section.sha256:
        raise _damaged(path, "a section that does not match its SHA-256")
    if not is_finite:
        raise _damaged(path, "NaN or Inf among its entries")


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
    if section.nbytes % 4:
        raise _damaged(path, f"{section.nbytes} bytes of token ids")
    tokens = np.empty(section.nbytes // 4, "<i4")
    data = _bytes(tokens)
    if file.readinto(data) != len(data) or hashlib.sha256(data).hexdigest() != section.sha256:
        raise _damaged(path, "a section that does not match its SHA-256")
    file.read(len(_padding(section.nbytes)))
    return tokens.astype(np.int32, copy=False)


def _damaged(path: Path, what: str) -> SavedStateError:
    return SavedStateError(f"{path}: damaged: {what}; delete it, and process the prompt again")


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _padding(n_bytes: int) -> bytes:
    return bytes(-n_bytes % _ALIGNMENT)
