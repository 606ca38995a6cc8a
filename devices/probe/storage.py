"""Read rates of a storage device: sequential and random, uncached and from the page cache.

Uncached reads use ``O_DIRECT``. On a file system without it (tmpfs, some network mounts) they may hit the page cache.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sprat.devices.machine import block_device
from sprat.errors import DeviceError
from sprat.text import human_bytes

__all__ = ["StorageRate", "random_rate", "storage_kind", "storage_rates"]

_BLOCK_SIZES = (4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20)
_FILE_BYTES = 256 << 20
_CHUNK_BYTES = 8 << 20
_WRITE_SECONDS = 8.0  # on a slow card the file is smaller
_READ_SECONDS = 0.5  # per block size and kind of read


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageRate:
    """Bytes per second with blocks of one size, at queue depth 1."""

    block_bytes: int
    random_bytes_per_s: float
    sequential_bytes_per_s: float
    cached_bytes_per_s: float  # random, from the page cache


def storage_rates(folder: Path) -> tuple[StorageRate, ...]:
    """Write a test file to ``folder`` and read it with blocks of 4 KiB to 8 MiB.

    Raises:
        DeviceError: the folder cannot be written, or is full.
    """
    with _test_file(folder) as path, _opened_direct(path) as direct, path.open("rb", buffering=0) as cached:
        for _ in iter(lambda: cached.read(_CHUNK_BYTES), b""):  # fills the page cache
            pass
        size = path.stat().st_size
        return tuple(
            StorageRate(
                block_bytes=block,
                random_bytes_per_s=_rate(direct, size, block, at_random=True),
                sequential_bytes_per_s=_rate(direct, size, block, at_random=False),
                cached_bytes_per_s=_rate(cached.fileno(), size, block, at_random=True),
            )
            for block in _BLOCK_SIZES
            if block <= size
        )


def random_rate(path: Path, block_bytes: int) -> float:
    """Bytes per second of uncached random reads from an existing file, at queue depth 1.

    Args:
        path: the file, at least one block long.
        block_bytes: size of a read.
    """
    with _opened_direct(path) as direct:
        return _rate(direct, path.stat().st_size, block_bytes, at_random=True)


def storage_kind(folder: Path) -> str:
    """Kind of storage device that holds ``folder``, from the name of its block device."""
    node = block_device(folder)
    name = node.name if node else ""
    kinds = {
        "nvme": "NVMe",
        "mmcblk": "SD card or eMMC",
        "sd": "SATA or USB",
        "vd": "virtual disk",
        "dm-": "mapped disk",
    }
    return next((kind for prefix, kind in kinds.items() if name.startswith(prefix)), "unknown storage")


@contextmanager
def _test_file(folder: Path) -> Iterator[Path]:
    """A file of random bytes without a name, so that nothing is left of a killed probe; flushed to the device."""
    try:
        if shutil.disk_usage(folder).free < 2 * _FILE_BYTES:
            raise DeviceError(f"{folder}: less than {human_bytes(2 * _FILE_BYTES)} free; choose another folder")
        with tempfile.TemporaryFile(dir=folder) as file:
            chunk, end = os.urandom(_CHUNK_BYTES), time.perf_counter() + _WRITE_SECONDS
            while file.tell() < _FILE_BYTES and (time.perf_counter() < end or not file.tell()):
                file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            yield Path(f"/proc/self/fd/{file.fileno()}")
    except OSError as error:
        raise DeviceError(
            f"{folder}: cannot be measured ({error.strerror}); choose a folder that you can write to"
        ) from error


@contextmanager
def _opened_direct(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
    except OSError:  # no O_DIRECT on this file system
        descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _rate(descriptor: int, size: int, block: int, *, at_random: bool) -> float:
    """Bytes per second of reads into one page-aligned buffer."""
    n_blocks = size // block
    rng = random.Random()  # unseeded: a host or a controller caches blocks of an earlier probe
    with mmap.mmap(-1, max(block, 4096)) as buffer:
        view = memoryview(buffer)[:block]
        n_read, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < _READ_SECONDS or not n_read:
            index = rng.randrange(n_blocks) if at_random else n_read % n_blocks
            os.preadv(descriptor, [view], index * block)
            n_read += 1
        view.release()
    return n_read * block / seconds
