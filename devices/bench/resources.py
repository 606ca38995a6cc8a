"""Resource use of a process: memory, page cache, storage; and the CPU time of other programs."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import resource
import time
from pathlib import Path

from sprat.alignment import ceil_div
from sprat.devices.bench.results import Machine
from sprat.devices.cpu import this_cpu
from sprat.devices.machine import memory_bytes

__all__ = ["BusyMeter", "cached_bytes", "drop_cached", "peak_rss_bytes", "storage_read_bytes", "this_machine"]

_STEAL = 7  # field of /proc/stat: user nice system idle iowait irq softirq steal
_IDLE, _IOWAIT = 3, 4


def this_machine(busy_share: float | None = None) -> Machine:
    """The machine that this process runs on."""
    cpu = this_cpu()
    return Machine(
        processor=cpu.model,
        architecture=cpu.machine,
        n_cores=cpu.n_cores,
        memory_bytes=memory_bytes(),
        system=f"{platform.system()} {platform.release()}",
        busy_share=busy_share,
    )


def peak_rss_bytes() -> int:
    """Peak resident memory of this process so far, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def storage_read_bytes() -> int | None:
    """Bytes read from storage on behalf of this process; ``None`` if the kernel does not count them."""
    try:
        text = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^read_bytes: (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


def cached_bytes(path: Path) -> int | None:
    """Bytes of the file in the page cache (``mincore(2)``); ``None`` if the kernel does not tell."""
    size = path.stat().st_size
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as view:
        anchor = ctypes.c_char.from_buffer(view)
        pages = (ctypes.c_ubyte * ceil_div(size, mmap.PAGESIZE))()
        status = libc.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size), pages)
        del anchor  # the map cannot be closed while it is exported
    return None if status else min(size, sum(page & 1 for page in pages) * mmap.PAGESIZE)


def drop_cached(path: Path) -> None:
    """Drop the file's pages from the page cache; pages that another program maps stay."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())  # dirty pages would stay
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class BusyMeter:
    """CPU share of other programs since it was created."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._start = _ticks(stat)
        self._own = time.process_time()

    def share(self) -> float | None:
        """Share of all cores' time, 0 to 1; ``None`` if the kernel does not count it."""
        now = _ticks(self._stat)
        if not self._start or not now:
            return None
        passed = [after - before for before, after in zip(self._start, now, strict=True)]
        total = sum(passed)
        own = (time.process_time() - self._own) * os.sysconf("SC_CLK_TCK")
        others = total - passed[_IDLE] - passed[_IOWAIT] - own
        return min(1.0, max(0.0, others / total)) if total else None


def _ticks(stat: Path) -> list[int]:
    """Clock ticks of all cores by state; user time includes guests."""
    try:
        fields = stat.read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return []
    return [int(field) for field in fields[1 : _STEAL + 2]]
