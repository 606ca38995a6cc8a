"""Input files, which are not trusted; files that appear whole, their digests, and the user's folders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from sprat.errors import InputError

__all__ = [
    "MAX_INPUT_BYTES",
    "DocumentError",
    "atomic_write",
    "cache_folder",
    "checked_path",
    "config_folder",
    "file_sha256",
    "open_input",
    "parse_json",
    "parse_toml",
    "read_input",
    "read_text",
    "refuse_special",
    "sync_folder",
]

MAX_INPUT_BYTES = 1 << 28
"""The largest file that is read whole; the largest tokenizer.json that is published has 35 MB."""

_BOM = b"\xef\xbb\xbf"  # editors of Windows write it
_Parsed = TypeVar("_Parsed")


class DocumentError(ValueError):
    """JSON or TOML that is malformed, nested too deeply, or of another structure; the message is one clause."""


def open_input(path: Path) -> BufferedReader:
    """Open a regular file for reading; links are followed.

    Raises:
        OSError: it cannot be opened, or is a FIFO, a socket or a device, where reading could block for ever.
    """
    try:
        _check_regular(Path(path).stat(), path)  # before opening, which has effects on some devices
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except ValueError as error:  # NUL, or characters that the file system's encoding lacks
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    try:
        _check_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def read_input(path: Path, max_bytes: int = MAX_INPUT_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: as :func:`open_input`, or the file is larger than ``max_bytes``.
    """
    with open_input(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes", str(path))
    return data


def read_text(path: Path, errors: str = "strict") -> str:
    """The text of a regular file in UTF-8.

    Raises:
        OSError: as :func:`read_input`.
        UnicodeDecodeError: it is not UTF-8, and ``errors`` is ``"strict"``.
    """
    return read_input(path).decode("utf-8", errors)


def parse_json(data: bytes, type: type[_Parsed] | Any = Any) -> Any:
    """The JSON document in ``data``, as ``type``; a byte order mark is skipped.

    Raises:
        DocumentError: malformed, nested too deeply, or of another structure than ``type``.
    """
    import msgspec

    try:
        return msgspec.json.decode(data.removeprefix(_BOM), type=type)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise DocumentError(str(error)) from error
    except RecursionError as error:
        raise DocumentError("nested too deeply") from error


def parse_toml(data: bytes, type: type[_Parsed] | Any = Any) -> Any:
    """The TOML document in ``data``, as ``type``.

    Raises:
        DocumentError: malformed, nested too deeply, or of another structure than ``type``.
    """
    import msgspec

    try:
        return msgspec.toml.decode(data, type=type)
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: an integer of over 4300 digits
        raise DocumentError(str(error)) from error
    except RecursionError as error:
        raise DocumentError("nested too deeply") from error


def _check_regular(found: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


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


def atomic_write(path: Path, *data: bytes | memoryview) -> None:
    """Write ``data`` to ``path``: under a temporary name first, then renamed, so that no reader sees half a file.

    Args:
        path: the final name; its folder exists, an existing file is replaced.
        data: the whole content, in parts.

    Raises:
        OSError: it cannot be written, or is no regular file; nothing is left behind, and an existing file is as it was.
    """
    refuse_special(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            for part in data:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error says why
            partial.unlink()
        error.filename, error.filename2 = str(path), None  # not the temporary name
        raise
    sync_folder(path.parent)


def refuse_special(path: Path) -> None:
    """Check that a file which is renamed to ``path`` would not take the place of a FIFO, a socket or a device.

    Raises:
        OSError: it would. A link is replaced, and what it leads to stays.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "not a regular file", str(path))


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


def file_sha256(path: Path, max_bytes: int | None = None) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read, or is larger than ``max_bytes``.
    """
    with open_input(path) as file:
        if max_bytes is not None and os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes", str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_folder() -> Path:
    """``sprat`` in the user's configuration folder (XDG Base Directory); need not exist."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config") / "sprat"


def cache_folder() -> Path:
    """``sprat`` in the user's cache folder (XDG Base Directory); need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "sprat"


def _home() -> Path:
    """The user's home; ``/``, as in containers, for a user who has none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")
