"""One pass over the source files: their SHA-256, and the tensors with NaN or infinite weights.

Both need every byte of a checkpoint that may be larger than memory, so they share the reads.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from sprat.arrays import U8Array
from sprat.export.source.file import FileTensor, SourceFile
from sprat.export.source.fp8 import F8_E4M3
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.quant.convert import first_nonfinite
from sprat.quant.formats import BlockFormat

__all__ = ["FileScan", "all_finite", "scan_files"]

CHUNK_BYTES = 1 << 20  # small enough to stay in L2 between reading, hashing and checking

# A float whose exponent bits are all set is NaN or Inf. Shifted left by one to drop the sign, its bits are at least:
_FIRST_NOT_FINITE: dict[str, np.unsignedinteger] = {
    "F32": np.uint32(0xFF000000),
    "F16": np.uint16(0xF800),
    "BF16": np.uint16(0xFF00),
    F8_E4M3.name: np.uint8(0xFE),  # E4M3 has no Inf: only a mantissa of all ones is NaN
}


@dataclass(frozen=True, slots=True)
class FileScan:
    """Result of the pass over one file."""

    sha256: str
    nonfinite: tuple[str, ...]  # names of tensors with NaN or infinite weights


def all_finite(packed: U8Array, format: BlockFormat) -> bool:
    """Whether no weight in ``packed``, whole blocks of ``format``, is NaN or infinite."""
    limit = _FIRST_NOT_FINITE.get(format.name)
    if limit is None:
        return first_nonfinite(packed, format) is None
    bits = packed.view(limit.dtype)
    return not bits.size or bool((bits << 1).max() < limit)


def scan_files(
    files: Mapping[SourceFile, Iterable[FileTensor]], progress: ReportProgress = no_progress
) -> dict[SourceFile, FileScan]:
    """Read every file from start to end and check the weights of the given tensors.

    Args:
        files: file -> its tensors to check.
        progress: called after each chunk, from several threads but never concurrently.

    Raises:
        ExportError: a file changed since it was found.
    """
    total = sum(file.nbytes for file in files)
    done, lock = 0, threading.Lock()

    def count(n_bytes: int) -> None:
        nonlocal done
        with lock:
            done += n_bytes
            progress(Progress(done, total, "reading the source"))

    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:  # a scan uses two threads
        return dict(zip(files, pool.map(partial(_scan_file, count), files, files.values()), strict=True))


def _scan_file(count: Callable[[int], None], file: SourceFile, tensors: Iterable[FileTensor]) -> FileScan:
    nonfinite: list[str] = []
    at = 0
    with _BackgroundHash(count) as digest:
        for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
            _hash_gap(digest, file, at, tensor.offset)
            if not _scan_tensor(digest, tensor):
                nonfinite.append(tensor.name)
            at = tensor.offset + tensor.nbytes
        _hash_gap(digest, file, at, file.nbytes)
        return FileScan(digest.hexdigest(), tuple(nonfinite))


def _scan_tensor(digest: _BackgroundHash, tensor: FileTensor) -> bool:
    """Whether all weights are finite; after the first chunk with NaN or Inf, the rest is only hashed."""
    finite = True
    step = CHUNK_BYTES // tensor.format.block_bytes * tensor.format.block_bytes
    end = tensor.offset + tensor.nbytes
    for start in range(tensor.offset, end, step):
        chunk = tensor.file.read(start, min(step, end - start))
        digest.update(chunk)
        finite = finite and all_finite(chunk, tensor.format)
    return finite


def _hash_gap(digest: _BackgroundHash, file: SourceFile, start: int, stop: int) -> None:
    for at in range(start, stop, CHUNK_BYTES):
        digest.update(file.read(at, min(CHUNK_BYTES, stop - at)))


class _BackgroundHash:
    """SHA-256 in a background thread, one chunk behind: hashing takes longer than reading and checking together."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count  # called with the size of every chunk
        self._digest = hashlib.sha256()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="source-hash")
        self._last: Future[None] | None = None

    def update(self, chunk: U8Array) -> None:
        self._wait()
        self._last = self._worker.submit(self._digest.update, chunk.data)
        self._count(chunk.nbytes)

    def hexdigest(self) -> str:
        self._wait()
        return self._digest.hexdigest()

    def _wait(self) -> None:
        if self._last:
            self._last.result()

    def __enter__(self) -> _BackgroundHash:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._worker.shutdown()
