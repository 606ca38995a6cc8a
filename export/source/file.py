"""Tensors in a source's files: read by offset for an export, mapped to run the model.

Each read opens and closes the file. That costs microseconds per chunk of megabytes and has three advantages: no open
descriptors for a checkpoint of 163 shards, a resident set of one chunk, and a check of the file's identity at every
read, so a source that changes during an export is an error instead of silent corruption.

A running model reads the same weights repeatedly, and they may be larger than memory: these are views of a map, which
:meth:`SourceFile.check_unchanged` checks after each pass.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

import msgspec
import numpy as np

from sprat.arrays import U8Array
from sprat.errors import CheckpointError, ExportError, ModelFileChangedError
from sprat.export.source.row_hashes import RowHashes
from sprat.quant.formats import BlockFormat
from sprat.runtime.files.mapped_file import GuardedMap

__all__ = ["FileTensor", "SourceFile"]

_COMPARED_BYTES = 1 << 20  # of a mapped tensor at once


class SourceFile(msgspec.Struct, frozen=True):
    """A regular file, with the size, times and inode that it had when it was found.

    Symbolic links are followed, as a Hugging Face cache needs.
    """

    path: Path
    nbytes: int
    modified_ns: int
    changed_ns: int  # ctime: set by the system at every change, also where a program restores the time above
    inode: int

    @classmethod
    def find(cls, path: Path) -> Self:
        """Stat the file at ``path``.

        Raises:
            CheckpointError: it does not exist, or is not a regular file.
        """
        try:
            found = path.stat()
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error.strerror}); check the path, or complete the download"
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError(f"{path}: not a regular file")
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def read(self, offset: int, nbytes: int) -> U8Array:
        """``nbytes`` bytes from ``offset`` on, in a new array; raises like :meth:`read_into`."""
        out = np.empty(nbytes, np.uint8)
        self.read_into(offset, out)
        return out

    def read_into(self, offset: int, out: U8Array) -> None:
        """Fill the contiguous array ``out`` with the bytes from ``offset`` on.

        Raises:
            ExportError: the file changed since it was found, or cannot be read.
        """
        left = out.data.cast("B") if out.size else memoryview(b"")
        try:
            with self.path.open("rb", buffering=0) as file:
                self._compare(os.fstat(file.fileno()))
                file.seek(offset)
                while left:
                    n_read = file.readinto(left)
                    if not n_read:
                        raise self.changed("unexpected end of file")
                    left = left[n_read:]
        except OSError as error:
            raise ExportError(
                f"{self.path}: cannot be read any more ({error.strerror}); check the disk and run the command again"
            ) from error

    def map(self) -> U8Array:
        """The whole file, read-only; it stays mapped while any view of it exists.

        Raises:
            ExportError: the file changed since it was found.
        """
        if (mapped := _MAPS.get(self)) is None:
            self.check_unchanged()
            mapped = _MAPS[self] = GuardedMap.open(self.path)
        return np.frombuffer(mapped, np.uint8)

    def check_unchanged(self) -> None:
        """Compare size, time and inode with those at :meth:`find`.

        Raises:
            ExportError: the file changed or was deleted, or cannot be read where it is mapped.
        """
        try:
            if (mapped := _MAPS.get(self)) is not None:
                mapped.watch.check_unchanged()
            self._compare(self.path.stat())
        except ModelFileChangedError as error:  # which asks to load a model again
            raise self.changed("while it was mapped") from error
        except OSError as error:
            raise self.changed(str(error.strerror)) from error

    def _compare(self, now: os.stat_result) -> None:
        if now.st_size != self.nbytes:
            raise self.changed(f"{self.nbytes} bytes before, {now.st_size} now")
        before = (self.modified_ns, self.changed_ns, self.inode)
        if (now.st_mtime_ns, now.st_ctime_ns, now.st_ino) != before:
            raise self.changed("same size, another time or inode")

    def changed(self, how: str) -> ExportError:
        """The error for a file that changed."""
        return ExportError(
            f"{self.path}: the source changed while it was read ({how}); "
            "run the command again when nothing else writes to it"
        )


_MAPS: WeakValueDictionary[SourceFile, GuardedMap] = WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A contiguous tensor of a file, as rows of packed blocks (:class:`~sprat.export.source.rows.RowSource`)."""

    name: str
    shape: tuple[int, ...]
    format: BlockFormat
    file: SourceFile
    offset: int
    hashes: RowHashes = field(init=False, compare=False, repr=False, default_factory=RowHashes)

    @property
    def n_columns(self) -> int:
        """Weights per row."""
        return self.shape[-1] if self.shape else 1

    @property
    def n_rows(self) -> int:
        """Rows over all leading axes."""
        return math.prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return self.n_rows * self.format.row_bytes(self.n_columns)

    def read_into(self, start: int, out: U8Array) -> None:
        """Fill ``out``, ``(n, row_bytes)``, with the ``n`` rows from ``start`` on.

        Raises:
            ExportError: the file changed, also where only its bytes show it, or cannot be read.
        """
        self.file.read_into(self.offset + start * self.format.row_bytes(self.n_columns), out)
        self._compare(start, out)

    def bound(self, measured: Callable[[FileTensor], float]) -> float:
        """The measured value of this tensor."""
        return measured(self)

    def stored(self) -> Iterator[FileTensor]:
        """This tensor."""
        yield self

    def whole(self) -> U8Array:
        """All rows, as a view of the mapped file; raises like :meth:`read_into`."""
        rows = self.file.map()[self.offset : self.offset + self.nbytes].reshape(self.n_rows, -1)
        step = max(1, _COMPARED_BYTES // max(1, rows.shape[1]))
        for start in range(0, self.n_rows, step):
            self._compare(start, rows[start : start + step])
        return rows

    def _compare(self, start: int, rows: U8Array) -> None:
        if not self.hashes.are_same(start, rows, self.n_rows):
            raise self.file.changed(f"tensor {self.name} has other weights than when it was hashed")
