"""What this machine is, as far as Linux says: cores by kind, memory, and what of it is free."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from sprat.devices.cpu import CPU
from sprat.devices.parts import Basis, Cores, Figure

__all__ = ["cache_bytes", "core_clocks", "cores_by_kind", "memory_bytes"]

_CLOCK_WITHOUT_WORD_GHZ = 2.0
_CACHE_SHARE_BYTES = 4 << 20  # per core, of a last cache that other programs or guests use as well


def cores_by_kind(cpu: CPU) -> tuple[Cores, ...]:
    """Cores of this process grouped by their highest clock, the fastest first: one kind, or big and little ones."""
    clocks = Counter(_clock_ghz(core) for core in os.sched_getaffinity(0))
    features = tuple(name for name, present in cpu.features.items() if present)
    return tuple(
        Cores(kind=cpu.model, count=count, clock_ghz=clock, features=features)
        for clock, count in sorted(clocks.items(), key=lambda item: -item[0].value)
    )


def core_clocks() -> dict[int, float]:
    """Highest clock in GHz of each core that this process may use."""
    return {core: _clock_ghz(core).value for core in sorted(os.sched_getaffinity(0))}


def memory_bytes() -> tuple[int, int]:
    """RAM of this machine, and how much of it could be handed out now."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    total, available = (
        int(found[1]) * 1024 if (found := re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)) else 0
        for name in ("MemTotal", "MemAvailable")
    )
    return total, available


def cache_bytes(cpu: CPU) -> int:
    """The cache that one program can count on."""
    own = cpu.cache_bytes.get("l2", 0) * cpu.n_cores
    return max(own, min(cpu.cache_bytes.get("l3", 0), _CACHE_SHARE_BYTES * cpu.n_cores), cpu.cache_bytes["l1d"])


def _clock_ghz(core: int) -> Figure:
    limit = Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq")
    if limit.exists():
        return Figure(value=int(limit.read_text()) / 1e6, basis=Basis.PUBLISHED, source="the driver's highest clock")
    told = re.search(r"^cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    if told:
        return Figure(value=round(float(told[1]) / 1e3, 2), basis=Basis.MEASURED, source="/proc/cpuinfo")
    return Figure(value=_CLOCK_WITHOUT_WORD_GHZ, basis=Basis.ASSUMED, source="this system tells no clock")
