"""``Entries``: the KV entries of consecutive tokens, in memory or mapped from the file of a saved state.

Mapped ones take no memory of the process: their pages are the system's copy of the file, which it drops when memory is
short and reads again. A file that is truncated or rewritten while it is mapped may not reach an answer: what was copied
from it counts only after :meth:`Entries.check_unchanged`.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from dataclasses import dataclass

from sprat.errors import SavedStateError
from sprat.runtime.cache import Cache, Rows
from sprat.runtime.files.mapped_file import GuardedMap

__all__ = ["Entries"]


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """KV entries of consecutive tokens.

    Attributes:
        rows: the arrays, read-only where they are mapped.
        file: that the rows are mapped from; ``None`` for rows in memory.
    """

    rows: Rows
    file: GuardedMap | None = None

    @property
    def n(self) -> int:
        """Number of tokens."""
        return int(self.rows[0].shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes in memory; 0 for mapped entries."""
        return sum(plane.nbytes for plane in self.rows) if self.file is None else 0

    def part(self, start: int, stop: int) -> Entries:
        """The entries of tokens ``start`` to ``stop - 1``; views."""
        return Entries(tuple(plane[:, :, start:stop] for plane in self.rows), self.file)

    def detached(self, start: int, stop: int) -> Entries:
        """As :meth:`part`, to be kept: a copy of entries in memory, since a view would keep all of them there."""
        part = self.part(start, stop)
        return part if self.file is not None else Entries(tuple(plane.copy() for plane in part.rows))

    def append_to(self, cache: Cache) -> None:
        """Add the tokens to ``cache``.

        Raises:
            SavedStateError: the file changed while it was mapped; the cache is as it was.
            PromptError: they do not fit into the capacity of the cache.
        """
        length = cache.length
        cache.append_rows(self.rows, after_layer=self.release_pages)
        try:
            self.check_unchanged()
        except SavedStateError:
            cache.truncate(length)
            raise

    def check_unchanged(self) -> None:
        """Check that what was read so far are the bytes that were mapped.

        Raises:
            SavedStateError: the file was truncated or rewritten, or cannot be read any more.
        """
        if self.file is not None and (how := self.file.watch.how_changed()) is not None:
            raise SavedStateError(
                f"{self.file.watch.path}: the file changed while it was in use ({how}), expected the bytes that were "
                "hashed; save it again, and replace such files by renaming, not in place"
            )

    def release_pages(self) -> None:
        """Leave the pages of the file to the system's copy of it: they are resident in this process no more."""
        if self.file is not None:
            with suppress(AttributeError, OSError):  # a system without it
                self.file.madvise(mmap.MADV_DONTNEED)
