"""SHA-256 of pieces of files, by several threads: one thread hashes less than a fast storage device reads."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import msgspec

from sprat.progress import Progress, ReportProgress

__all__ = ["Piece", "differing_pieces"]

_READ_BYTES = 1 << 20
_MAX_THREADS = 8
_REPORT_S = 0.1


class Piece(msgspec.Struct, frozen=True):
    """Bytes ``begin`` to ``end`` of a file, and the first bytes of their SHA-256."""

    path: Path
    what: str
    begin: int
    end: int
    digest: bytes


def differing_pieces(pieces: Sequence[Piece], progress: ReportProgress) -> Iterator[tuple[Piece, str]]:
    """The pieces whose digest differs, in the order of ``pieces``, and how: what was found instead.

    Files are read by position and not mapped, so that a failing storage device is an error and not a signal.

    Args:
        pieces: of any files.
        progress: called ten times a second from this thread, in bytes.
    """
    total = sum(piece.end - piece.begin for piece in pieces)
    reader = _Reader()
    n_threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(n_threads, thread_name_prefix="hash"))
        stack.callback(reader.stop)  # before the pool waits for its threads
        found = [pool.submit(reader.difference, piece) for piece in pieces]
        pending: set[Future[str]] = set(found)
        while pending:
            _, pending = wait(pending, timeout=_REPORT_S, return_when=FIRST_COMPLETED)
            progress(Progress(reader.n_bytes, total, reader.what))
    return ((piece, how) for piece, future in zip(pieces, found, strict=True) if (how := future.result()))


class _Reader:
    """State shared by the threads: bytes read so far, and whether to stop."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self.what = ""
        self._lock = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        """Let every thread leave its piece; only when the result is not wanted any more."""
        self._stopped = True

    def difference(self, piece: Piece) -> str:
        """Difference of the piece from its digest; empty if there is none."""
        self.what = f"{piece.path.name}: {piece.what}"
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
        try:
            with piece.path.open("rb", buffering=0) as file:
                at = piece.begin
                while at < piece.end and not self._stopped:
                    n = os.preadv(file.fileno(), [buffer[: min(_READ_BYTES, piece.end - at)]], at)
                    if n == 0:
                        return f"ends at byte {at:,} instead of {piece.end:,}"
                    digest.update(buffer[:n])
                    at += n
                    with self._lock:
                        self.n_bytes += n
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return "" if digest.digest().startswith(piece.digest) else f"has SHA-256 {digest.hexdigest()}"
