"""This machine, as Linux describes it: cores by kind, caches, memory."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from sprat.devices.cpu import CPU
from sprat.devices.parts import Basis, Cores, Sourced

__all__ = ["available_bytes", "cache_bytes", "core_clocks", "cores_by_kind", "memory_bytes"]

_DEFAULT_CLOCK_GHZ = 2.0
_SHARED_CACHE_BYTES = 4 << 20  # per core; other programs or virtual machines use the rest of a shared L3
_MEMINFO = Path("/proc/meminfo")


def cores_by_kind(cpu: CPU) -> tuple[Cores, ...]:
    """Cores of this process grouped by their highest clock, fastest first: one kind, or big and little ones."""
    clocks = Counter(_clock_ghz(core) for core in os.sched_getaffinity(0))
    features = tuple(name for name, present in cpu.features.items() if present)
    return tuple(
        Cores(kind=cpu.model, count=count, clock_ghz=clock, features=features)
        for clock, count in sorted(clocks.items(), key=lambda item: -item[0].value)
    )


def core_clocks() -> dict[int, float]:
    """Highest clock in GHz of each core that this process may use."""
    return {core: _clock_ghz(core).value for core in sorted(os.sched_getaffinity(0))}


def memory_bytes() -> int:
    """RAM of this machine."""
    return _meminfo("MemTotal") or _physical_bytes()


def available_bytes() -> int:
    """Memory that programs can still allocate, page cache included (MemAvailable); half of RAM if unknown."""
    return _meminfo("MemAvailable") or _physical_bytes() // 2


def cache_bytes(cpu: CPU) -> int:
    """The largest CPU cache that one program can count on, over all its cores."""
    own = cpu.cache_bytes.get("l2", 0) * cpu.n_cores
    return max(own, min(cpu.cache_bytes.get("l3", 0), _SHARED_CACHE_BYTES * cpu.n_cores), cpu.cache_bytes["l1d"])


def _meminfo(key: str) -> int:
    """Bytes of an entry of /proc/meminfo; 0 if there is none."""
    text = _MEMINFO.read_text(encoding="ascii") if _MEMINFO.exists() else ""
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _clock_ghz(core: int) -> Sourced:
    limit = Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq")
    if limit.exists():
        return Sourced(value=int(limit.read_text()) / 1e6, basis=Basis.PUBLISHED, source="cpuinfo_max_freq")
    found = re.search(r"^cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    if found:
        return Sourced(value=round(float(found[1]) / 1e3, 2), basis=Basis.MEASURED, source="/proc/cpuinfo")
    return Sourced(value=_DEFAULT_CLOCK_GHZ, basis=Basis.ASSUMED, source="the system reports no clock")
