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
from pathlib import Path
from typing import Any, Self

from sprat.errors import ModelFileChangedError
from sprat.files import open_input
from sprat.native import core
from sprat.runtime.files.samples import add_samples

__all__ = ["FileWatch", "GuardedMap"]

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
        if self._guard is not None and self._guard.failed:
            raise self._changed("a part that was there before cannot be read")
        if (clock := time.monotonic()) >= self._look_again:
            self._look()
            self._look_again = clock + _LOOK_EVERY_S  # not after a change: that stays an error

    def _look(self) -> None:
        """Compare size and times, and the samples where only the change time differs."""
        try:
            now = self._absolute.stat()
        except OSError:  # deleted or moved away: the map keeps what it was
            return
        if (now.st_dev, now.st_ino) != self._inode:
            return
        if (now.st_size, now.st_mtime_ns) != self._found:
            raise self._changed(f"{self._found[0]} bytes before, {now.st_size} now, modified meanwhile")
        if now.st_ctime_ns != self._changed_ns:
            self._compare_samples()
            self._changed_ns = now.st_ctime_ns

    def _compare_samples(self) -> None:
        try:
            now = self._sampled()
        except OSError as error:
            raise self._changed(f"it cannot be compared: {error.strerror}") from error
        if now != self._samples:
            raise self._changed("same size and modification time, other content")

    def _sampled(self) -> bytes:
        """SHA-256 of samples of the file."""
        digest = hashlib.sha256()
        with open_input(self._absolute) as file:
            add_samples(digest, file, _SAMPLES, _SAMPLE_BYTES)
        return digest.digest()

    def end_guard(self) -> None:
        """Guard nothing any more: the map is gone."""
        self._guard = None

    def _changed(self, how: str) -> ModelFileChangedError:
        return ModelFileChangedError(
            f"{self.path}: the file changed while it was in use ({how}), expected the bytes that were loaded; load the "
            "model again, and replace model files by renaming, not in place"
        )


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
