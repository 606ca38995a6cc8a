"""The record of finished tensors beside an unfinished file, from which the same command continues after a crash.

A journal is JSON lines, appended one record per ``write``::

    {"layout":"9f2c…","source":"41aa…","journal":2}                         digests of the layout and of the source
    {"tensor":"token_embd.weight","prefix":"5be0…","digest":"77ab…"}        one line per finished tensor, in file order:
    {"tensor":"blk.0.attn_norm.weight","prefix":"a71d…","digest":"0c91…"}   SHA-256 of the file up to its end, of itself

Nothing is synced to disk while a file grows: that would cost more than it saves. After a power cut a line may therefore
exist without the data it describes, so each line carries the digest of all bytes up to its tensor's end, and a reader
trusts only the prefix whose digest matches. An incomplete last line is ignored.
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
from sprat.export.write.errors import export_errors
from sprat.export.write.plain_files import open_own
from sprat.files import open_input

__all__ = ["FinishedTensor", "Journal", "JournalHead", "is_journal"]

_BEGINNING = b'{"layout":"'
_VERSION = 2


class JournalHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Identity of the unfinished file: ``layout`` is its layout digest, ``source`` the digest of what is read."""

    layout: str
    source: str
    journal: int = _VERSION


class FinishedTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor that was passed to ``write`` completely.

    ``prefix`` is the SHA-256 of the file up to its end, ``digest`` that of the tensor with its padding.
    """

    tensor: str
    prefix: str
    digest: str


@dataclass(slots=True)
class Journal:
    """An open, locked journal; ``finished`` starts with the records of an earlier run."""

    path: Path
    head: JournalHead | None
    finished: list[FinishedTensor]
    _descriptor: int

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the journal at ``path`` and read its records; a damaged one counts as empty.

        Raises:
            ExportError: another process is writing the same output, or the folder cannot be written.
        """
        with export_errors(path):
            descriptor = open_own(path, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ExportError(f"{path}: another process is writing this output; wait for it or stop it") from error
        head, finished = _parse(path.read_bytes())
        return cls(path, head, finished, descriptor)

    def restart(self, head: JournalHead) -> None:
        """Delete all records and begin a journal for ``head``."""
        os.ftruncate(self._descriptor, 0)
        self.head, self.finished = head, []
        self._append(head)

    def keep(self, n_finished: int) -> None:
        """Keep the first ``n_finished`` tensors and delete the other records, incomplete lines included."""
        assert self.head is not None, "the journal has no head"
        head, kept = self.head, self.finished[:n_finished]
        self.restart(head)
        for record in kept:
            self.add(record)

    def add(self, record: FinishedTensor) -> None:
        """Record a finished tensor."""
        self._append(record)
        self.finished.append(record)

    def remove(self) -> None:
        """Delete the file: the output is complete."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock; the file is kept."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, record: JournalHead | FinishedTensor) -> None:
        os.write(self._descriptor, msgspec.json.encode(record) + b"\n")


def is_journal(path: Path) -> bool:
    """Whether the file begins as a journal of any version does, as far as it was written before a full disk."""
    try:
        with open_input(path) as file:
            text = file.read(len(_BEGINNING))
    except OSError:
        return False
    return _BEGINNING.startswith(text)


def _parse(text: bytes) -> tuple[JournalHead | None, list[FinishedTensor]]:
    """The head, and the finished tensors up to the first line that is incomplete or malformed."""
    head_line, *lines = text.split(b"\n")[:-1] or [b""]  # text after the last newline is incomplete
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
