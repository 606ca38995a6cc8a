"""Mapped model files, and what happens when one changes while it is mapped.

A page that cannot be read any more, because the file was truncated or its storage device fails, raises SIGBUS. In a map
of this module the native core puts zeros in its place (``runtime/native/maps/guard.hpp``) and remembers it; without the
core the process dies. A file that is rewritten in place with the same size has another modification time. Both are a
:class:`~sprat.errors.ModelFileChangedError` at the next :meth:`FileWatch.check_unchanged`, which every forward pass
calls before its result is used; times and size are looked at once in a millisecond, which is more than once per answer.

Copies that keep times, and systems that give all files one time, leave the modification time as it was. The change
time of the inode (ctime) cannot be set by a program, but new links, permissions and names change it, too. So where it
alone is another, samples of the file are compared with those of the time when it was mapped. Change of a few bytes
between the samples is not noticed then; file systems without a change time (FAT) show none of it.

Replacing a file by renaming another to its name is safe: the map keeps the old one.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

from sprat.errors import ModelFileChangedError
from sprat.files import open_input
from sprat.native import core
from sprat.runtime.files.samples import add_samples

__all__ = ["FileWatch", "GuardedMap"]

_LOST = "a part that was there before cannot be read"
_LOOK_EVERY_S = 0.001  # a stat takes as long as a fiftieth of a small model's token
_SAMPLES, _SAMPLE_BYTES = 64, 4096  # at every load, so few; any other training, quantization or merge differs in them


class FileWatch:
    """Notices that a file, which this process maps, changed or cannot be read.

    Args:
        path: the file.
        status: of the file when it was mapped.
        guard: the native core's guard of the map; ``None`` without the core.
    """

    def __init__(self, path: Path, status: os.stat_result, guard: Any) -> None:
        self.path = path
        self._absolute = path.resolve()
        self._look_again = 0.0  # on the clock of time.monotonic
        self._inode = status.st_dev, status.st_ino
        self._found = status.st_size, status.st_mtime_ns
        self._changed_ns = status.st_ctime_ns
        self._samples = self._sampled()
        self._guard = guard

    @classmethod
    def of_library(cls, path: Path) -> Self:
        """A watch for a file that a library maps by itself; made before the library opens it."""
        guard = None if core is None else core.MapGuard(str(path.resolve()))
        return cls(path, path.stat(), guard)

    def check_unchanged(self) -> None:
        """Check that all reads of the map so far returned the file's bytes.

        Raises:
            ModelFileChangedError: a page could not be read, or size, modification time, or change time and content are
                others than when the file was mapped.
        """
        clock = time.monotonic()
        how = self.how_changed() if clock >= self._look_again else self._lost()
        if how is not None:
            raise ModelFileChangedError(
                f"{self.path}: the file changed while it was in use ({how}), expected the bytes that were loaded; load "
                "the model again, and replace model files by renaming, not in place"
            )
        if clock >= self._look_again:
            self._look_again = clock + _LOOK_EVERY_S  # not after a change: that stays an error

    def how_changed(self) -> str | None:
        """What changed, if not all reads of the map so far returned the file's bytes; looks at size and times now."""
        return self._lost() or self._look()

    def _lost(self) -> str | None:
        return _LOST if self._guard is not None and self._guard.failed else None

    def _look(self) -> str | None:
        """Compare size and times, and the samples where only the change time differs."""
        try:
            now = self._absolute.stat()
        except OSError:  # deleted or moved away: the map keeps what it was
            return None
        if (now.st_dev, now.st_ino) != self._inode:
            return None
        if (now.st_size, now.st_mtime_ns) != self._found:
            return f"{self._found[0]} bytes before, {now.st_size} now, modified meanwhile"
        if now.st_ctime_ns == self._changed_ns:
            return None
        how = self._compare_samples()
        if how is None:
            self._changed_ns = now.st_ctime_ns
        return how

    def _compare_samples(self) -> str | None:
        try:
            now = self._sampled()
        except OSError as error:
            return f"it cannot be compared: {error.strerror}"
        return None if now == self._samples else "same size and modification time, other content"

    def _sampled(self) -> bytes:
        """SHA-256 of samples of the file."""
        digest = hashlib.sha256()
        with open_input(self._absolute) as file:
            add_samples(digest, file, _SAMPLES, _SAMPLE_BYTES)
        return digest.digest()

    def end_guard(self) -> None:
        """Guard nothing any more: the map is gone."""
        self._guard = None


class GuardedMap(mmap.mmap):
    """A whole file, mapped read-only. The guard lives as long as the map, which lives as long as any view of it."""

    watch: FileWatch

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the file.

        Raises:
            OSError: it cannot be opened or mapped.
        """
        with path.open("rb") as file:
            return cls.of_file(file, path)

    @classmethod
    def of_file(cls, file: BufferedReader, path: Path) -> Self:
        """Map ``file``, which is open, and was opened as ``path``; it may be closed then.

        Raises:
            OSError: it cannot be mapped.
            ValueError: it is empty.
        """
        status = os.fstat(file.fileno())
        mapped = cls(file.fileno(), 0, access=mmap.ACCESS_READ)
        mapped.watch = FileWatch(path, status, None if core is None else core.MapGuard(mapped))
        return mapped

    def close(self) -> None:
        """Unmap the file; its addresses may be another map's afterwards, so the guard ends.

        Raises:
            BufferError: there are views of it.
        """
        super().close()
        self.watch.end_guard()
