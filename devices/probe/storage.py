"""How fast a medium is read: in sequence and at random, past the page cache and out of it.

Past the cache means ``O_DIRECT``; a file system that refuses it (tmpfs, some network mounts) is asked to forget the
file's pages before each read instead.
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

from sprat.errors import DeviceError

__all__ = ["StorageRate", "medium_of", "random_rate", "storage_rates"]

_BLOCK_SIZES = (4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20)
_FILE_BYTES = 256 << 20
_CHUNK_BYTES = 8 << 20
_WRITE_SECONDS = 8.0  # a slow card gets a smaller file
_READ_SECONDS = 0.5  # for each size and kind


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageRate:
    """Bytes per second with reads of one size, one at a time."""

    block_bytes: int
    random_bytes_per_s: float
    sequential_bytes_per_s: float
    cached_bytes_per_s: float  # at random, out of the page cache


def storage_rates(folder: Path) -> tuple[StorageRate, ...]:
    """Read a file made for this in ``folder``, with blocks of 4 KiB to 8 MiB.

    Raises:
        DeviceError: the folder cannot be written, or is full.
    """
    with _test_file(folder) as path, _opened_past_cache(path) as direct, path.open("rb", buffering=0) as cached:
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
    """Bytes per second of reads at random from a file that exists, past the page cache, one at a time.

    Args:
        path: the file.
        block_bytes: of a read; the file has as many.
    """
    with _opened_past_cache(path) as direct:
        return _rate(direct, path.stat().st_size, block_bytes, at_random=True)


def medium_of(folder: Path) -> str:
    """What kind of medium ``folder`` lies on, as far as its driver's name says."""
    device = folder.stat().st_dev
    link = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    name = link.resolve().name if link.exists() else ""
    kinds = {
        "nvme": "NVMe",
        "mmcblk": "SD card or eMMC",
        "sd": "SATA or USB",
        "vd": "virtual disk",
        "dm-": "mapped disk",
    }
    return next((kind for prefix, kind in kinds.items() if name.startswith(prefix)), "unknown medium")


@contextmanager
def _test_file(folder: Path) -> Iterator[Path]:
    """A file of random bytes, on the medium and not only in the cache."""
    try:
        if shutil.disk_usage(folder).free < 2 * _FILE_BYTES:
            raise DeviceError(f"{folder}: less than {2 * _FILE_BYTES:,} bytes are free; measure another folder")
        with tempfile.NamedTemporaryFile(dir=folder, prefix="sprat-probe-") as file:
            chunk, end = os.urandom(_CHUNK_BYTES), time.perf_counter() + _WRITE_SECONDS
            while file.tell() < _FILE_BYTES and (time.perf_counter() < end or not file.tell()):
                file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            yield Path(file.name)
    except OSError as error:
        raise DeviceError(f"{folder}: cannot be measured ({error.strerror}); name a folder that you own") from error


@contextmanager
def _opened_past_cache(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
    except OSError:  # the file system knows no O_DIRECT
        descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _rate(descriptor: int, size: int, block: int, *, at_random: bool) -> float:
    """Bytes per second of reads into one aligned buffer."""
    n_blocks = size // block
    choose = random.Random()  # others each time: a host or a controller remembers those it read before
    with mmap.mmap(-1, max(block, 4096)) as buffer:
        view = memoryview(buffer)[:block]
        n_read, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < _READ_SECONDS or not n_read:
            index = choose.randrange(n_blocks) if at_random else n_read % n_blocks
            os.preadv(descriptor, [view], index * block)
            n_read += 1
        view.release()
    return n_read * block / seconds
