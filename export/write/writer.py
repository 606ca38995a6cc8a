"""Writing a file of weights of any size within a small memory, so that it can be killed at any moment and continued.

The layout is known before the first weight is read: a GGUF's is :mod:`sprat.export.gguf.layout`, that of the weights
beside an ONNX graph, which have no header, :mod:`sprat.export.onnx.data`. Then tensor after tensor is appended to
``NAME.partial`` in chunks, and each finished one is noted in ``NAME.journal`` (:mod:`sprat.export.write.journal`). The
final name appears with one rename, when every byte is on the disk.

The caller's thread reads and quantizes the next chunk while a second thread hashes and writes the last one.

The file grows by whole huge pages (2 MiB): Linux, from 6.16 on and where the file system can, then keeps it in such
pages and maps it so. A file of 8.9 GB was read at 33 GB/s, and at 22 from pages of 4 KiB (measured).
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

from sprat.arrays import U8Array
from sprat.errors import ExportError
from sprat.export.write.journal import FinishedTensor, Journal, JournalHead
from sprat.export.write.layout import FileLayout, PlacedTensor, Tensor
from sprat.files import file_sha256, sync_folder
from sprat.progress import Progress, ReportProgress, no_progress

__all__ = [
    "PackTensor",
    "WrittenFile",
    "check_room",
    "write_file",
]

Buffer: TypeAlias = bytes | memoryview

_CHUNKS_IN_FLIGHT = 3
_READ_BACK_BYTES = 1 << 20
_HUGE_PAGE_BYTES = 2 << 20

PackTensor: TypeAlias = Callable[[Tensor], Iterable[U8Array]]
"""Yields the packed bytes of a tensor in order; their maker does not touch them afterwards."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A finished file; ``n_resumed`` tensors of it were taken over from an interrupted run."""

    path: Path
    nbytes: int
    sha256: str
    n_resumed: int = 0
    note: str = ""  # why an interrupted run was not continued


def write_file(
    path: Path,
    layout: FileLayout[Tensor],
    pack: PackTensor[Tensor],
    *,
    source: str = "",
    check_source: Callable[[], None] = lambda: None,
    progress: ReportProgress = no_progress,
    keep_journal: bool = False,
) -> WrittenFile:
    """Write ``layout`` to ``path``, or continue what an interrupted call left there.

    Args:
        path: the final name; an existing file is replaced, at the very end.
        layout: header and places.
        pack: yields the bytes of one tensor; called in file order, and not for tensors that were taken over.
        source: hash of what ``pack`` reads; an interrupted file is continued only from the same.
        check_source: raises when the source is no longer what it was; called after each tensor.
        progress: called after each chunk.
        keep_journal: leave ``path.journal``, so that a caller with more to write may be killed and find this file done.

    Raises:
        ExportError: no room, no rights, another process at the same output, or a source that changed. Nothing new
            stands under ``path`` then; what was written so far is kept for the next call.
    """
    head = JournalHead(plan=layout.fingerprint(), source=source)
    check_room(path, layout)
    with _plain_errors(path), Journal.open(_journal(path)) as journal:
        note = _why_afresh(journal, head)
        if journal.head != head:
            journal.restart(head)
        if not _is_published(path, layout, journal):
            with _GrowingFile.open(_partial(path), layout, journal) as growing:
                n_resumed = len(journal.finished)
                _fill(growing, layout.tensors[n_resumed:], layout.nbytes, pack, check_source, progress)
                growing.finish()
            _partial(path).replace(path)
            sync_folder(path.parent)
        else:
            n_resumed = len(layout.tensors)
        sha256 = journal.finished[-1].prefix
        if not keep_journal:
            journal.remove()
    return WrittenFile(path, layout.nbytes, sha256, n_resumed, note)


def check_room(path: Path, layout: FileLayout[Tensor]) -> None:
    """Make sure that what is still to be written fits on the disk of ``path``, whose folder need not exist.

    Raises:
        ExportError: it does not; the message says by how many bytes.
    """
    standing = _partial(path) if not _journal(path).exists() or _partial(path).exists() else path
    needed_bytes = layout.nbytes - (standing.stat().st_size if standing.is_file() else 0)
    free_bytes = _free_bytes(next(folder for folder in path.absolute().parents if folder.exists()))
    if needed_bytes > free_bytes:
        raise ExportError(
            f"{path}: {needed_bytes:,} bytes are still to be written and {free_bytes:,} are free; "
            f"free {needed_bytes - free_bytes:,} bytes and run the same command again"
        )


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _journal(path: Path) -> Path:
    return path.with_name(path.name + ".journal")


def _free_bytes(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def _why_afresh(journal: Journal, head: JournalHead) -> str:
    """Nothing when ``journal`` is new or of the same plan."""
    if journal.head is None or journal.head == head:
        return ""
    return f"an unfinished file of another {'source' if journal.head.plan == head.plan else 'recipe'} was discarded"


def _is_published(path: Path, layout: FileLayout[Tensor], journal: Journal) -> bool:
    """Whether the whole file has its name already, though its journal still stands."""
    if _partial(path).exists() or not path.exists() or len(journal.finished) != len(layout.tensors):
        return False
    return file_sha256(path) == journal.finished[-1].prefix


def _fill(
    growing: _GrowingFile,
    tensors: Iterable[PlacedTensor[Tensor]],
    total_bytes: int,
    pack: PackTensor[Tensor],
    check_source: Callable[[], None],
    progress: ReportProgress,
) -> None:
    for placed in tensors:
        at = placed.begin
        for chunk in pack(placed.tensor):
            growing.append(chunk.data)
            at += chunk.nbytes
            progress(Progress(at, total_bytes, placed.tensor.name))
        check_source()
        assert at == placed.begin + placed.tensor.nbytes, f"{placed.tensor.name}: {at - placed.begin} bytes were packed"
        growing.finish_tensor(placed)


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
    """The unfinished file; one thread of its own hashes and writes what is appended, a huge page at a time."""

    def __init__(self, descriptor: int, journal: Journal, digest: hashlib._Hash, nbytes: int) -> None:
        self._descriptor, self._journal, self._digest = descriptor, journal, digest
        self._unwritten, self._room = bytearray(), _HUGE_PAGE_BYTES - nbytes % _HUGE_PAGE_BYTES
        self._ended: list[FinishedTensor] = []  # whose last bytes may be unwritten
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="file-writer")
        self._in_flight: deque[Future[None]] = deque()
        self._failed = False

    @classmethod
    def open(cls, path: Path, layout: FileLayout[Tensor], journal: Journal) -> _GrowingFile:
        """Open ``path`` after the last tensor that ``journal`` vouches for and whose bytes are there."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        n_trusted, digest = _trusted_prefix(descriptor, layout, journal)
        if n_trusted < len(journal.finished):
            journal.keep(n_trusted)
        nbytes = layout.tensors[n_trusted - 1].end if n_trusted else 0
        os.ftruncate(descriptor, nbytes)
        os.lseek(descriptor, nbytes, os.SEEK_SET)
        growing = cls(descriptor, journal, digest, nbytes)
        if not n_trusted:
            growing.append(layout.header)
        return growing

    def append(self, data: Buffer) -> None:
        """Hand over bytes; waits while more than a few chunks are in flight, and raises what their writing raised."""
        self._submit(lambda: self._take(memoryview(data).cast("B")))

    def finish_tensor(self, placed: PlacedTensor[Tensor]) -> None:
        """Pad the tensor whose bytes were appended, and note it in the journal."""
        self.append(placed.padding)
        self._submit(lambda: self._ended.append(FinishedTensor(placed.tensor.name, self._digest.hexdigest())))

    def finish(self) -> None:
        """Wait until all is on the disk."""
        self._submit(self._write)
        self._drain(0)
        os.fsync(self._descriptor)

    def __enter__(self) -> _GrowingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.submit(self._run, self._write)  # what was handed over: an interruption loses as little as it can
        self._writer.shutdown()
        os.close(self._descriptor)

    def _submit(self, task: Callable[[], None]) -> None:
        self._drain(_CHUNKS_IN_FLIGHT - 1)
        self._in_flight.append(self._writer.submit(self._run, task))

    def _run(self, task: Callable[[], None]) -> None:
        """Do ``task`` unless one before it failed: nothing may be written after a gap."""
        if not self._failed:
            self._failed = True
            task()
            self._failed = False

    def _drain(self, n_left: int) -> None:
        while len(self._in_flight) > n_left:
            self._in_flight.popleft().result()

    def _take(self, data: memoryview) -> None:
        self._digest.update(data)
        while data:
            self._unwritten += data[: self._room]
            if len(data) < self._room:
                self._room -= len(data)
                return
            data = data[self._room :]
            self._write()

    def _write(self) -> None:
        """Write what is left of a huge page, or less at the end, and then note the tensors that ended in it."""
        rest = memoryview(self._unwritten)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        for record in self._ended:
            self._journal.add(record)
        self._unwritten, self._room, self._ended = bytearray(), _HUGE_PAGE_BYTES, []


def _trusted_prefix(descriptor: int, layout: FileLayout[Tensor], journal: Journal) -> tuple[int, hashlib._Hash]:
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
