"""Tensors as they lie in a source's files: read by position for an export, mapped for a run of the model.

For a read the file is opened and closed again. That costs microseconds beside a chunk of megabytes, and buys three
things: no descriptor to look after for a checkpoint of 163 shards, a resident set of one chunk, and a look at the
file's identity each time, so that a source that changes while it is exported is an error and not a silent mixture of
two. (A memory map would turn a file that shrinks into SIGBUS, which no Python code can catch.)

A model that runs asks for the same weights again and again, and they may be larger than memory: those are views of a
map.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

import numpy as np

from sprat.arrays import U8Array
from sprat.errors import CheckpointError, ExportError
from sprat.quant.formats import BlockFormat

__all__ = ["SourceFile", "StoredTensor"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A regular file, and what told it from any other when it was found.

    Links are followed, as in a Hugging Face cache.
    """

    path: Path
    nbytes: int
    modified_ns: int
    inode: int

    @classmethod
    def find(cls, path: Path) -> Self:
        """Look at the file at ``path``.

        Raises:
            CheckpointError: there is none, or it is not a regular file.
        """
        try:
            found = path.stat()
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error.strerror}); check the path, or complete the download"
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError(f"{path}: not a regular file")
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ino)

    def read(self, offset: int, nbytes: int) -> U8Array:
        """``nbytes`` bytes from ``offset`` on, in memory of their own; raises as :meth:`read_into`."""
        out = np.empty(nbytes, np.uint8)
        self.read_into(offset, out)
        return out

    def read_into(self, offset: int, out: U8Array) -> None:
        """Fill ``out``, which is contiguous, with the bytes from ``offset`` on.

        Raises:
            ExportError: the file is no longer what it was, or the disk failed.
        """
        left = out.data.cast("B")
        try:
            with self.path.open("rb", buffering=0) as file:
                self._compare(os.fstat(file.fileno()))
                file.seek(offset)
                while left:
                    n_read = file.readinto(left)
                    if not n_read:
                        raise self._changed("it ends early")
                    left = left[n_read:]
        except OSError as error:
            raise ExportError(f"{self.path}: cannot be read any more ({error.strerror}); start again") from error

    def map(self) -> U8Array:
        """The whole file, read-only; mapped once, as long as any view of it lives.

        Raises:
            ExportError: the file is no longer what it was.
        """
        if (mapped := _MAPS.get(self)) is None:
            self.check_unchanged()
            with self.path.open("rb") as file:
                mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
            _MAPS[self] = mapped
        return mapped

    def check_unchanged(self) -> None:
        """Compare the file with what was found first.

        Raises:
            ExportError: it changed, or is gone.
        """
        try:
            self._compare(self.path.stat())
        except OSError as error:
            raise self._changed(str(error.strerror)) from error

    def _compare(self, now: os.stat_result) -> None:
        if (now.st_size, now.st_mtime_ns, now.st_ino) != (self.nbytes, self.modified_ns, self.inode):
            raise self._changed(f"{self.nbytes} bytes before, {now.st_size} now")

    def _changed(self, how: str) -> ExportError:
        return ExportError(
            f"{self.path}: the source changed while it was read ({how}); start again when it stands still"
        )


_MAPS: WeakValueDictionary[SourceFile, U8Array] = WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A contiguous tensor of a file, as rows of packed blocks (:class:`~sprat.export.source.rows.Rows`)."""

    name: str
    shape: tuple[int, ...]
    format: BlockFormat
    file: SourceFile
    offset: int

    @property
    def n_columns(self) -> int:
        """Weights in a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def n_rows(self) -> int:
        """Rows over all leading axes."""
        return math.prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.n_rows * self.format.row_bytes(self.n_columns)

    def read_into(self, start: int, out: U8Array) -> None:
        """Fill ``out``, ``(n, row_bytes)``, with rows from ``start`` on."""
        self.file.read_into(self.offset + start * self.format.row_bytes(self.n_columns), out)

    def whole(self) -> U8Array:
        """All rows, as a view of the file's map."""
        return self.file.map()[self.offset : self.offset + self.nbytes].reshape(self.n_rows, -1)
