"""Files of an unfinished output, opened so that no link, device or second name of another file is written through."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from sprat.errors import ExportError

__all__ = ["delete_all", "open_folder", "open_own", "write_new"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def open_folder(path: str | Path, inside: int | None = None) -> int:
    """A descriptor of the folder ``path``, relative to the folder ``inside``; a link is not followed.

    Raises:
        OSError: it does not exist, or is a link or a file.
    """
    return os.open(path, _FOLDER, dir_fd=inside)


def open_own(path: Path, flags: int) -> int:
    """Open or create a file that sprat keeps between runs.

    Args:
        path: the file.
        flags: for ``os.open``, without ``O_CREAT``.

    Raises:
        OSError: it cannot be opened, or is a link.
        ExportError: it is no regular file, or also has another name.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise ExportError(f"{path}: exists and was not made by sprat export; move it away, or choose another output")
    return descriptor


def write_new(folder: int, name: str, data: bytes) -> None:
    """Write a new file and sync it to disk; a file or a link of this name is replaced.

    Args:
        folder: descriptor of the folder.
        name: relative path with ``/``; folders in it are created.
        data: the whole content.

    Raises:
        OSError: it cannot be written, or a folder in ``name`` is a link or a file.
    """
    parts = PurePosixPath(name).parts
    with _descended(folder, parts[:-1]) as inside:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(parts[-1], dir_fd=inside)
        with os.fdopen(os.open(parts[-1], _NEW, 0o666, dir_fd=inside), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def delete_all(folder: int, keep: Collection[str] = ()) -> None:
    """Delete everything in the folder; links are deleted and not followed.

    Args:
        folder: descriptor of the folder.
        keep: relative paths of files to keep.

    Raises:
        OSError: why the first of the files that stay could not be deleted.
    """
    problems: list[OSError] = []
    kept = {parent for name in keep for parent in map(str, PurePosixPath(name).parents)}
    for root, folders, files, descriptor in os.fwalk(".", topdown=False, dir_fd=folder):
        inside = PurePosixPath(root)
        for name in (*files, *folders):
            path = str(inside / name)
            if path in keep or path in kept:
                continue
            try:
                is_folder = stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
                (os.rmdir if is_folder else os.unlink)(name, dir_fd=descriptor)
            except OSError as error:
                problems.append(error)
    if problems:
        raise problems[0]


def _made(folder: int, name: str) -> int:
    """A descriptor of the folder ``name``; a link or a file of this name is replaced."""
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        with contextlib.suppress(NotADirectoryError):
            return open_folder(name, folder)
        os.unlink(name, dir_fd=folder)
        os.mkdir(name, dir_fd=folder)
    return open_folder(name, folder)


@contextmanager
def _descended(folder: int, parts: Collection[str]) -> Iterator[int]:
    """A descriptor of the folder ``parts`` below ``folder``, created where it does not exist."""
    current = os.dup(folder)
    try:
        for part in parts:
            above, current = current, _made(current, part)
            os.close(above)
        yield current
    finally:
        os.close(current)
