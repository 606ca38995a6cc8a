"""Writing a GGUF file of any size within a small memory, so that it can be killed at any moment and continued.

The whole header is known before the first weight is read (:mod:`sprat.export.gguf_layout`); then tensor after tensor is
appended to ``NAME.gguf.partial`` in chunks, and each finished one is noted in ``NAME.gguf.journal``
(:mod:`sprat.export.journal`). The final name appears with one rename, when every byte is on the disk.

The caller's thread reads and quantizes the next chunk while a second thread hashes and writes the last one.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from sprat.errors import ExportError
from sprat.export.gguf_layout import Layout, PlacedTensor, PlannedTensor
from sprat.export.journal import FinishedTensor, Journal, JournalHead
from sprat.quant.formats.block import U8Array

__all__ = ["PackTensor", "Progress", "ReportProgress", "WrittenFile", "file_sha256", "sync_folder", "write_gguf"]

Buffer: TypeAlias = bytes | memoryview

_CHUNKS_IN_FLIGHT = 3
_READ_BACK_BYTES = 1 << 20

PackTensor = Callable[[PlannedTensor], Iterable[U8Array]]
"""Yields the packed bytes of a tensor in order; their maker does not touch them afterwards."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file is."""

    tensor: str
    done_bytes: int
    total_bytes: int


ReportProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A finished file; ``n_resumed`` tensors of it were taken over from an interrupted run."""

    path: Path
    nbytes: int
    sha256: str
    n_resumed: int = 0
    note: str = ""  # why an interrupted run was not continued


def write_gguf(
    path: Path,
    layout: Layout,
    pack: PackTensor,
    *,
    source: str = "",
    check_source: Callable[[], None] = lambda: None,
    progress: ReportProgress = lambda _: None,
    keep_journal: bool = False,
) -> WrittenFile:
    """Write ``layout`` to ``path``, or continue what an interrupted call left there.

    Args:
        path: the final name; an existing file is replaced, at the very end.
        layout: header and places.
        pack: yields the bytes of one tensor; called in file order, and not for tensors that were taken over.
        source: fingerprint of what ``pack`` reads; an interrupted file is continued only from the same.
        check_source: raises when the source is no longer what ``source`` says; called after each tensor.
        progress: called after each chunk.
        keep_journal: leave ``path.journal``, so that a caller with more to write may be killed and find this file done.

    Raises:
        ExportError: no room, no rights, another process at the same output, or a source that changed. Nothing new
            stands under ``path`` then; what was written so far is kept for the next call.
    """
    head = JournalHead(plan=layout.fingerprint(), source=source)
    partial = path.with_name(path.name + ".partial")
    with _plain_errors(path), Journal.open(path.with_name(path.name + ".journal")) as journal:
        note = _why_afresh(journal, head)
        if journal.head != head:
            journal.restart(head)
        done = _finished_before(path, partial, layout, journal)
        if done is None:
            with _GrowingFile.open(partial, layout, journal) as growing:
                done = _fill(growing, path, layout, pack, check_source, progress)
            _publish(partial, path)
        if not keep_journal:
            journal.remove()
    return WrittenFile(path, layout.nbytes, done.sha256, done.n_resumed, note)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make names that were just created or renamed in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Done:
    sha256: str
    n_resumed: int


def _why_afresh(journal: Journal, head: JournalHead) -> str:
    """Nothing when ``journal`` is new or of the same plan."""
    if journal.head is None or journal.head == head:
        return ""
    if journal.head.plan == head.plan:
        raise ExportError(
            f"{journal.path}: the source changed after {len(journal.finished)} tensors were written from it; "
            "delete this file to start from the source as it is now"
        )
    return "an unfinished file of another recipe was discarded"


def _finished_before(path: Path, partial: Path, layout: Layout, journal: Journal) -> _Done | None:
    """The whole file, when it was published but its journal still stands."""
    if partial.exists() or not path.exists() or len(journal.finished) != len(layout.tensors):
        return None
    sha256 = file_sha256(path)
    return _Done(sha256, len(layout.tensors)) if sha256 == journal.finished[-1].prefix else None


def _fill(
    growing: _GrowingFile,
    path: Path,
    layout: Layout,
    pack: PackTensor,
    check_source: Callable[[], None],
    progress: ReportProgress,
) -> _Done:
    n_resumed = growing.n_finished
    _check_room(path, layout.nbytes - growing.nbytes)
    for placed in layout.tensors[n_resumed:]:
        done = placed.begin
        for chunk in pack(placed.tensor):
            growing.append(chunk.data)
            done += chunk.nbytes
            progress(Progress(placed.tensor.name, done, layout.nbytes))
        check_source()
        assert done == placed.begin + placed.tensor.nbytes, f"{placed.tensor.name}: {done - placed.begin} bytes packed"
        growing.finish_tensor(placed)
    return _Done(growing.finish(), n_resumed)


def _check_room(path: Path, needed_bytes: int) -> None:
    free_bytes = _free_bytes(path.parent)
    if needed_bytes > free_bytes:
        raise ExportError(
            f"{path}: {needed_bytes:,} bytes are still to be written and {free_bytes:,} are free; "
            f"free {needed_bytes - free_bytes:,} bytes and run the same command again: it continues"
        )


def _free_bytes(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def _publish(partial: Path, path: Path) -> None:
    partial.replace(path)
    sync_folder(path.parent)


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"{path}: cannot be written ({error.strerror}); what was written so far is kept: "
            "remove the cause and run the same command again, it continues"
        ) from error


class _GrowingFile:
    """The unfinished file; one thread of its own hashes and writes what is appended."""

    def __init__(self, descriptor: int, journal: Journal, nbytes: int, digest: hashlib._Hash) -> None:
        self.nbytes = nbytes
        self._descriptor, self._journal, self._digest = descriptor, journal, digest
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="gguf-writer")
        self._in_flight: deque[Future[None]] = deque()

    @classmethod
    def open(cls, path: Path, layout: Layout, journal: Journal) -> _GrowingFile:
        """Open ``path`` after the last tensor that ``journal`` vouches for and whose bytes are there."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        trusted, digest = _trusted_prefix(descriptor, layout, journal)
        if trusted < len(journal.finished):
            journal.keep(trusted)
        nbytes = layout.tensors[trusted - 1].end if trusted else 0
        os.ftruncate(descriptor, nbytes)
        os.lseek(descriptor, nbytes, os.SEEK_SET)
        growing = cls(descriptor, journal, nbytes, digest)
        if not trusted:
            growing.append(layout.header)
        return growing

    @property
    def n_finished(self) -> int:
        """Tensors that need not be packed again."""
        return len(self._journal.finished)

    def append(self, data: Buffer) -> None:
        """Hand over bytes; waits while more than a few chunks are in flight, and raises what their writing raised."""
        self._submit(lambda: self._write(memoryview(data).cast("B")))

    def finish_tensor(self, placed: PlacedTensor) -> None:
        """Pad the tensor whose bytes were appended, and note it in the journal."""
        self.append(placed.padding)
        self._submit(lambda: self._journal.add(FinishedTensor(placed.tensor.name, self._digest.hexdigest())))

    def finish(self) -> str:
        """Wait until all is on the disk; the SHA-256 of the file."""
        self._drain(0)
        os.fsync(self._descriptor)
        return self._digest.hexdigest()

    def __enter__(self) -> _GrowingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(cancel_futures=True)
        os.close(self._descriptor)

    def _submit(self, task: Callable[[], None]) -> None:
        self._drain(_CHUNKS_IN_FLIGHT - 1)
        self._in_flight.append(self._writer.submit(task))

    def _drain(self, n_left: int) -> None:
        while len(self._in_flight) > n_left:
            self._in_flight.popleft().result()

    def _write(self, data: memoryview) -> None:
        self._digest.update(data)
        while data:
            data = data[os.write(self._descriptor, data) :]


def _trusted_prefix(descriptor: int, layout: Layout, journal: Journal) -> tuple[int, hashlib._Hash]:
    """How many finished tensors have the bytes that the journal noted, and the digest up to there."""
    running, trusted = hashlib.sha256(), hashlib.sha256()
    at = 0
    for n_trusted, (record, placed) in enumerate(zip(journal.finished, layout.tensors, strict=False)):
        _digest_range(running, descriptor, at, placed.end)
        at = placed.end
        if running.hexdigest() != record.prefix:
            return n_trusted, trusted
        trusted = running.copy()
    return len(journal.finished), trusted


def _digest_range(digest: hashlib._Hash, descriptor: int, begin: int, end: int) -> None:
    for at in range(begin, end, _READ_BACK_BYTES):
        digest.update(os.pread(descriptor, min(_READ_BACK_BYTES, end - at), at))
