"""Standard error: progress and messages, which no result depends on."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["make_messages_best_effort"]


def make_messages_best_effort() -> None:
    """Let a standard error that is full or closed lose messages instead of ending the command.

    Standard output is different: a result that cannot be written is an error.
    """
    stream = sys.stderr
    if stream is None:  # closed: the next file that is opened would get its number
        sys.stderr = io.TextIOWrapper(io.FileIO(os.open(os.devnull, os.O_WRONLY), "w"), write_through=True)
    elif (own := sys.__stderr__) is not None and stream is own:
        raw = _Lossy(own.fileno())
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=own.encoding, errors="backslashreplace", write_through=True
        )


class _Lossy(io.RawIOBase):
    """A file whose write errors are dropped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]  # typeshed has Buffer
        """Write ``data``, or drop it."""
        try:
            return os.write(self._descriptor, data)
        except OSError:
            return len(data)

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor, for libraries that look at it."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)
