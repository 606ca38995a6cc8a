"""What a writer has finished, kept beside its unfinished file, so that the same command continues after a crash.

A journal is JSON lines, appended one record per ``write``::

    {"plan":"9f2c…","source":"41aa…","journal":1}                what is being written, and from what
    {"tensor":"token_embd.weight","prefix":"5be0…"}              one line per finished tensor, in file order;
    {"tensor":"blk.0.attn_norm.weight","prefix":"a71d…"}         SHA-256 of the file up to this tensor's end

Nothing is flushed to the disk while a file grows: that would cost more than it saves. A power cut may therefore keep a
line and lose the data that it vouches for, which is why each line carries the digest of all bytes before it, and a
reader trusts only the prefix that matches. A torn last line is no line.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from sprat.errors import ExportError

__all__ = ["FinishedTensor", "Journal", "JournalHead"]

_VERSION = 1


class JournalHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the unfinished file will be: ``plan`` covers layout and recipe, ``source`` what is read."""

    plan: str
    source: str
    journal: int = _VERSION


class FinishedTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor whose bytes were all handed to the operating system; ``prefix`` digests the file up to its end."""

    tensor: str
    prefix: str


@dataclass(slots=True)
class Journal:
    """An open, locked journal; ``finished`` is what an earlier run left in it."""

    path: Path
    head: JournalHead | None
    finished: list[FinishedTensor]
    _descriptor: int

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the journal at ``path`` and read what it holds; a damaged one counts as empty.

        Raises:
            ExportError: another process is writing the same output, or the folder cannot be written.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise ExportError(f"{path}: cannot be written ({error.strerror}); choose a folder that can") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ExportError(
                f"{path}: another process is writing this output; wait for it, or stop it first"
            ) from error
        head, finished = _parse(path.read_bytes())
        return cls(path, head, finished, descriptor)

    def restart(self, head: JournalHead) -> None:
        """Forget everything and begin a journal for ``head``."""
        os.ftruncate(self._descriptor, 0)
        self.head, self.finished = head, []
        self._append(head)

    def keep(self, n_finished: int) -> None:
        """Keep the first ``n_finished`` tensors and forget the rest, torn lines included."""
        assert self.head is not None, "a journal without a head has nothing to keep"
        head, kept = self.head, self.finished[:n_finished]
        self.restart(head)
        for record in kept:
            self.add(record)

    def add(self, record: FinishedTensor) -> None:
        """Note that a tensor is finished."""
        self._append(record)
        self.finished.append(record)

    def remove(self) -> None:
        """Delete the file: the output is complete."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock; the file stays."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, record: JournalHead | FinishedTensor) -> None:
        os.write(self._descriptor, msgspec.json.encode(record) + b"\n")


def _parse(text: bytes) -> tuple[JournalHead | None, list[FinishedTensor]]:
    """The head and the finished tensors up to the first line that is torn or foreign."""
    head_line, *lines = text.split(b"\n")[:-1] or [b""]  # what follows the last newline is torn
    try:
        head = msgspec.json.decode(head_line, type=JournalHead)
    except msgspec.MsgspecError:
        return None, []
    if head.journal != _VERSION:
        return None, []
    finished: list[FinishedTensor] = []
    for line in lines:
        try:
            finished.append(msgspec.json.decode(line, type=FinishedTensor))
        except msgspec.MsgspecError:
            break
    return head, finished
