"""One pass over the source files: their SHA-256, and for each tensor a bound of its magnitudes, infinite for NaN.

Both need every byte of a checkpoint that may be larger than memory, so they share the reads; and so do the hashes by
which later reads notice that a tensor changed.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import numpy as np

from sprat.arrays import U8Array
from sprat.export.source.file import FileTensor, SourceFile
from sprat.export.source.fp8 import F8_E4M3, F8_E8M0
from sprat.export.source.row_hashes import SEGMENT_BYTES, hash_rows
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.quant.convert import first_nonfinite
from sprat.quant.formats import BlockFormat

__all__ = ["FileScan", "magnitude_bound", "scan_files"]

CHUNK_BYTES = 1 << 20  # small enough to stay in L2 between reading, hashing and checking

# Formats whose bits without the sign are ordered as the magnitudes are, NaN last: one comparison for each weight.
_ORDERED_BITS: dict[str, type[np.unsignedinteger[Any]]] = {
    "F32": np.uint32,
    "F16": np.uint16,
    "BF16": np.uint16,
    F8_E4M3.name: np.uint8,
    F8_E8M0.name: np.uint8,
}


class FileScan(msgspec.Struct, frozen=True):
    """Result of the pass over one file."""

    sha256: str
    bounds: Mapping[str, float]  # tensor -> upper bound of the magnitudes of its weights; Inf if one is NaN or Inf

    @property
    def nonfinite(self) -> tuple[str, ...]:
        """Names of tensors with NaN or infinite weights."""
        return tuple(name for name, bound in self.bounds.items() if math.isinf(bound))


def magnitude_bound(packed: U8Array, format: BlockFormat) -> float:
    """The largest magnitude in ``packed``, whole blocks of ``format``, or an upper bound; Inf if one is NaN or Inf.

    Exact for floats. For quantized weights it follows from the scales, so it may be some times too large.
    """
    ordered = _ORDERED_BITS.get(format.name)
    if ordered is not None:
        bits = packed.view(ordered)
        if not bits.size:
            return 0.0
        largest = bits.max() if format is F8_E8M0 else (bits << 1).max() >> 1  # UE8M0 has no sign
        bound = float(format.dequantize(np.atleast_1d(largest).view(np.uint8))[0])
    elif format.scale_fields and first_nonfinite(packed, format) is not None:
        return math.inf
    else:
        bound = format.bound(packed)
    return bound if math.isfinite(bound) else math.inf


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
    bounds: dict[str, float] = {}
    at = 0
    with _BackgroundHash(count) as digest:
        for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
            _hash_gap(digest, file, at, tensor.offset)
            bounds[tensor.name] = _scan_tensor(digest, tensor)
            at = tensor.offset + tensor.nbytes
        _hash_gap(digest, file, at, file.nbytes)
        return FileScan(digest.hexdigest(), bounds)


def _scan_tensor(digest: _BackgroundHash, tensor: FileTensor) -> float:
    """An upper bound of all magnitudes; after the first chunk with NaN or Inf, the rest is only hashed."""
    bound, total = 0.0, 0
    row_bytes = tensor.format.row_bytes(tensor.n_columns)
    for start, nbytes in _pieces(tensor.nbytes, row_bytes, tensor.format.block_bytes):
        chunk = tensor.file.read(tensor.offset + start, nbytes)
        digest.update(chunk)
        total += int(hash_rows(chunk.reshape(-1, min(row_bytes, nbytes)), start).sum())
        if math.isfinite(bound):
            bound = max(bound, magnitude_bound(chunk, tensor.format))
    tensor.hashes.expect(total % 2**64)
    return bound


def _pieces(nbytes: int, row_bytes: int, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Start and size of the pieces of a tensor to read at once: whole rows, or whole blocks and segments of one row."""
    if row_bytes <= CHUNK_BYTES:
        span = step = CHUNK_BYTES // max(1, row_bytes) * row_bytes
    else:
        span, unit = row_bytes, math.lcm(SEGMENT_BYTES, block_bytes)
        step = max(1, CHUNK_BYTES // unit) * unit
    for first in range(0, nbytes, max(1, span)):
        end = min(first + span, nbytes)
        yield from ((start, min(step, end - start)) for start in range(first, end, step))


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
