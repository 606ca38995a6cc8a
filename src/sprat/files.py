"""Files that appear whole, their digests, and the user's folders."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from sprat.errors import InputError

__all__ = ["atomic_write", "cache_folder", "checked_path", "config_folder", "file_sha256", "sync_folder"]


def checked_path(path: object, what: str = "path") -> Path:
    """The path that a user passed as the argument ``what``; it need not exist.

    Raises:
        InputError: it is neither text nor a path, it is empty, or it has a NUL character.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise InputError(f"{what} is {path!r}, expected text or a pathlib.Path")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InputError(f"{what} is {text!r}, expected the name of a file or folder")
    return Path(text)


def atomic_write(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``: under a temporary name first, then renamed, so that no reader sees half a file.

    Args:
        path: the final name; its folder exists, an existing file is replaced.
        data: the whole content.

    Raises:
        OSError: it cannot be written; nothing is left behind, and an existing file is as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # the first error says why
            partial.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names that were just created or renamed in ``folder`` survive a power cut.

    Raises:
        OSError: the folder cannot be opened or synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_folder() -> Path:
    """``sprat`` in the user's configuration folder (XDG Base Directory); need not exist."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sprat"


def cache_folder() -> Path:
    """``sprat`` in the user's cache folder (XDG Base Directory); need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sprat"
