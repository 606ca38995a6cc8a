"""Properties of this machine on Linux: cores by kind, caches, memory, block devices."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from sprat.devices.container import container_available_bytes, container_memory_bytes
from sprat.devices.cpu import CPU
from sprat.devices.parts import Basis, Cores, Sourced

__all__ = [
    "available_bytes",
    "block_device",
    "cache_bytes",
    "core_clocks",
    "core_speeds",
    "cores_by_kind",
    "memory_bytes",
]

_DEFAULT_CLOCK_GHZ = 2.0
_SHARED_CACHE_BYTES = 4 << 20  # per core; other programs or virtual machines use the rest of a shared L3
_UNKNOWN_CACHE_BYTES = 256 << 10  # per core, where neither the C library nor the kernel reports any cache
_SYSFS_CPU = Path("/sys/devices/system/cpu")
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


def core_speeds() -> dict[int, float]:
    """Relative speed of each core that this process may use: the kernel's capacity where it differs, else the clock.

    Capacities (ARM, 1024 for the fastest core) count instructions per cycle as well; clocks of a phone's little cores
    are over half of its big cores'.
    """
    clocks = core_clocks()
    capacities = {core: _capacity(core) for core in clocks}
    return capacities if all(capacities.values()) and len(set(capacities.values())) > 1 else clocks


def memory_bytes() -> int:
    """RAM of this machine, or the memory limit of this container if that is less."""
    return _least(_meminfo("MemTotal") or _physical_bytes(), container_memory_bytes())


def available_bytes() -> int:
    """Memory that this process can still allocate, page cache included; half of RAM if unknown.

    The least of the machine's MemAvailable and of what the memory limit of this container leaves.
    """
    return _least(_meminfo("MemAvailable") or _physical_bytes() // 2, container_available_bytes())


def cache_bytes(cpu: CPU) -> int:
    """The largest CPU cache that one program can count on, over all its cores; 256 KiB per core if unknown."""
    own = cpu.cache_bytes.get("l2", 0) * cpu.n_cores
    shared = min(cpu.cache_bytes.get("l3", 0), _SHARED_CACHE_BYTES * cpu.n_cores)
    return max(own, shared, cpu.cache_bytes.get("l1d", 0)) or _UNKNOWN_CACHE_BYTES * cpu.n_cores


def block_device(path: Path) -> Path | None:
    """Sysfs folder of the block device that holds ``path``; ``None`` for network, memory and overlay file systems."""
    device = path.stat().st_dev
    link = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    return link.resolve() if link.exists() else None


def _least(of_machine: int, of_container: int | None) -> int:
    return of_machine if of_container is None else min(of_machine, of_container)


def _meminfo(key: str) -> int:
    """Bytes of an entry of /proc/meminfo; 0 if there is none."""
    text = _MEMINFO.read_text(encoding="ascii") if _MEMINFO.exists() else ""
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _capacity(core: int) -> float:
    """The scheduler's capacity of a core; 0 if the kernel has none."""
    entry = _SYSFS_CPU / f"cpu{core}" / "cpu_capacity"
    text = entry.read_text(encoding="ascii").strip() if entry.exists() else ""
    return float(text) if text.isdigit() else 0.0


def _clock_ghz(core: int) -> Sourced:
    limit = _SYSFS_CPU / f"cpu{core}" / "cpufreq" / "cpuinfo_max_freq"
    if limit.exists():
        return Sourced(value=int(limit.read_text()) / 1e6, basis=Basis.PUBLISHED, source="cpuinfo_max_freq")
    found = re.search(r"^cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    if found:
        return Sourced(value=round(float(found[1]) / 1e3, 2), basis=Basis.MEASURED, source="/proc/cpuinfo")
    return Sourced(value=_DEFAULT_CLOCK_GHZ, basis=Basis.ASSUMED, source="the system reports no clock")
