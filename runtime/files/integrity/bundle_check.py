"""The files of a bundle compared with the hashes of its manifest, and the names of what differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from sprat.errors import ModelFileError
from sprat.progress import ReportProgress
from sprat.runtime.files.integrity.piece_hashes import Piece, differing_pieces
from sprat.runtime.files.integrity.tensor_digests import gguf_pieces

__all__ = ["HashedFile", "hash_problems", "unlisted_files"]

_WHOLE = "the file"
_MAX_NAMES = 8  # of tensors in a message


class HashedFile(Protocol):
    """A file of a manifest."""

    @property
    def name(self) -> str:
        """Relative to the bundle."""

    @property
    def size_bytes(self) -> int:
        """Size of the file."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file, in hexadecimal."""

    @property
    def tensor_digests(self) -> str | msgspec.UnsetType:
        """The digests of a GGUF's tensors: see :mod:`sprat.runtime.files.integrity.tensor_digests`."""


def hash_problems(folder: Path, files: Sequence[HashedFile], progress: ReportProgress) -> Iterator[str]:
    """Differences from the manifest, file by file.

    Args:
        folder: the bundle.
        files: as its manifest lists them; they exist and have the right sizes.
        progress: called ten times a second, in bytes.
    """
    problems: dict[str, str] = {}
    pieces: list[Piece] = []
    for file in files:
        try:
            pieces += _pieces(folder / file.name, file)
        except ModelFileError as error:
            problems[file.name] = f"{file.name!r} differs from the manifest in its header: {error}"
    differing: dict[Path, list[tuple[Piece, str]]] = defaultdict(list)
    for piece, how in differing_pieces(pieces, progress):
        differing[piece.path].append((piece, how))
    for file in files:
        if file.name in problems:
            yield problems[file.name]
        elif found := differing[folder / file.name]:
            yield _problem(file, found)


def unlisted_files(folder: Path, listed: set[str]) -> list[str]:
    """The files in ``folder`` that are not ``listed``."""
    found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in found if name not in listed]


def _pieces(path: Path, file: HashedFile) -> Sequence[Piece]:
    if isinstance(file.tensor_digests, str):
        return gguf_pieces(path, file.tensor_digests)
    return [Piece(path, _WHOLE, 0, file.size_bytes, bytes.fromhex(file.sha256))]


def _problem(file: HashedFile, differing: Sequence[tuple[Piece, str]]) -> str:
    if differing[0][0].what == _WHOLE:
        return f"{file.name!r} {differing[0][1]}, the manifest says {file.sha256}"
    unread = next((f" ({how})" for _, how in differing if not how.startswith("has")), "")
    names = ", ".join(piece.what for piece, _ in differing[:_MAX_NAMES])
    more = f" and {len(differing) - _MAX_NAMES} more" if len(differing) > _MAX_NAMES else ""
    return f"{file.name!r} differs from the manifest in {names}{more}{unread}"
