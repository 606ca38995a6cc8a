"""``OUT.partial``: the folder in which an export is built, marked as sprat's own and locked by one process.

::

    OUT.partial/
        .sprat-export     the marker, and the lock: flock of this file
        bundle/           the files; renamed to OUT when they are complete
        replaced/         the bundle that OUT was, until it is deleted

A folder without the marker belongs to someone else and is never touched, and neither is what a link leads to. The
marker is the last file that is deleted, so that after a crash at any moment the folder is either marked or empty.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sprat.errors import ExportError
from sprat.export.write.errors import export_errors
from sprat.export.write.plain_files import delete_all, open_folder

__all__ = ["OwnFolder", "check_partial", "partial_folder", "scratch_folder"]

_MARKER = ".sprat-export"
_TEXT = b"sprat builds an export in this folder. The same command continues it; the folder may also be deleted.\n"


def partial_folder(out: Path) -> Path:
    """``OUT.partial``, for the bundle ``out``."""
    return out.with_name(out.name + ".partial")


@dataclass(frozen=True, slots=True)
class OwnFolder:
    """The folder, created if it did not exist, marked, and locked until :meth:`close`."""

    path: Path
    descriptor: int
    _marker: int

    @classmethod
    def lock(cls, path: Path) -> Self:
        """Create or take over the folder ``path``.

        Raises:
            ExportError: it exists and is not sprat's, another process builds in it, or it cannot be written.
        """
        while True:
            with export_errors(path):
                descriptor = _opened(path)
            try:
                marker = _locked_marker(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if marker is not None:
                return cls(path, descriptor, marker)
            os.close(descriptor)  # the process that had the lock finished and deleted the folder

    def remove(self) -> None:
        """Delete the folder with all that is in it; what cannot be deleted stays, marked, for the next run."""
        with contextlib.suppress(OSError):
            delete_all(self.descriptor, keep={_MARKER})
        if os.listdir(self.descriptor) == [_MARKER]:  # noqa: PTH208 - of a descriptor
            with contextlib.suppress(OSError):
                os.unlink(_MARKER, dir_fd=self.descriptor)
                self.path.rmdir()

    def close(self) -> None:
        """Release the lock."""
        os.close(self._marker)
        os.close(self.descriptor)


def check_partial(out: Path) -> None:
    """Check that ``OUT.partial`` can be used, before hours are spent on the source; nothing is created.

    Raises:
        ExportError: it exists and is not sprat's, or another process builds in it.
    """
    path = partial_folder(out)
    if os.path.lexists(path):
        OwnFolder.lock(path).close()


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """An empty folder to build ``out`` in and to rename to it; deleted with all that is left at the end.

    Raises:
        ExportError: as :meth:`OwnFolder.lock`.
    """
    own = OwnFolder.lock(partial_folder(out))
    try:
        folder = own.path / "scratch"
        with export_errors(folder):
            delete_all(own.descriptor, keep={_MARKER})
            folder.mkdir()
        yield folder
    finally:
        own.remove()
        own.close()


def _opened(path: Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True)
        return open_folder(path)
    except (FileExistsError, NotADirectoryError) as error:
        if os.path.lexists(path):  # a file or a link
            raise _strange(path) from error
        raise


def _locked_marker(path: Path, folder: int) -> int | None:
    """The marker's descriptor with the lock; ``None`` if another process deleted the folder in the meantime."""
    names = os.listdir(folder)
    if names and _MARKER not in names:
        raise _strange(path)
    try:
        marker = os.open(_MARKER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if _MARKER in names:
            raise _strange(path) from error  # a link, a folder
        with export_errors(path):
            raise
    try:
        return _take(path, folder, marker)
    except BaseException:
        os.close(marker)
        raise


def _take(path: Path, folder: int, marker: int) -> int | None:
    """Lock the opened marker, and check that it is sprat's and still the one in the folder."""
    found = os.fstat(marker)
    if not stat.S_ISREG(found.st_mode) or not _TEXT.startswith(os.pread(marker, len(_TEXT) + 1, 0)):  # a short write
        raise _strange(path)
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ExportError(f"{path}: another process is writing this output; wait for it or stop it") from error
    try:
        here = os.stat(_MARKER, dir_fd=folder, follow_symlinks=False)
        is_current = (here.st_ino, path.lstat().st_ino) == (found.st_ino, os.fstat(folder).st_ino)
    except FileNotFoundError:
        is_current = False
    if not is_current:
        os.close(marker)
        return None
    with export_errors(path):
        os.pwrite(marker, _TEXT, 0)
    return marker


def _strange(path: Path) -> ExportError:
    return ExportError(
        f"{path}: exists and was not made by sprat export, which builds its output there; "
        "move it away, or choose another name for the output"
    )
