"""This CPU: instruction sets, caches, page size; from the native core, or from Linux without it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from sprat.native import core

__all__ = ["CPU", "this_cpu"]

# Name of an instruction set in sprat -> its flags in /proc/cpuinfo; all of them must be present.
_X86_FLAGS = {
    "avx2": ("avx2",),
    "fma": ("fma",),
    "f16c": ("f16c",),
    "bmi2": ("bmi2",),
    "avx_vnni": ("avx_vnni",),
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    "avx512_vbmi": ("avx512f", "avx512vbmi"),
    "avx512_vnni": ("avx512f", "avx512_vnni"),
    "avx512_bf16": ("avx512f", "avx512_bf16"),
    "amx_int8": ("amx_int8",),
    "amx_bf16": ("amx_bf16",),
}
_ARM_FLAGS = {
    "neon": ("asimd",),
    "fp16": ("asimdhp",),
    "dotprod": ("asimddp",),
    "sve": ("sve",),
    "i8mm": ("i8mm",),
    "bf16": ("bf16",),
}
_CACHE_SIZE = re.compile(r"(\d+)([KMG]?)")
_CACHE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_SYSFS_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class CPU:
    """Properties of a machine's CPU that kernels depend on."""

    model: str
    machine: str  # x86_64, aarch64, ...
    n_cores: int  # usable by this process
    features: dict[str, bool]
    cache_bytes: dict[str, int]  # level -> bytes; 0 or absent where unknown
    page_bytes: int


def this_cpu() -> CPU:
    """The CPU that this process runs on."""
    text = _cpuinfo()
    return CPU(
        model=_field(text, "model name") or _field(text, "Model") or platform.processor() or "unknown",
        machine=platform.machine(),
        n_cores=len(os.sched_getaffinity(0)),
        features=core.cpu_features() if core else features_from_cpuinfo(text),
        cache_bytes=(core.cache_bytes() if core else {}) | _sysfs_cache_bytes(),
        page_bytes=core.page_bytes() if core else os.sysconf("SC_PAGESIZE"),
    )


def features_from_cpuinfo(text: str) -> dict[str, bool]:
    """Instruction sets from the text of ``/proc/cpuinfo``; equal to the native core's ``cpu_features``."""
    on_arm = "CPU architecture" in text
    present = set(_field(text, "Features" if on_arm else "flags").split())
    table = _ARM_FLAGS if on_arm else _X86_FLAGS
    return {name: present.issuperset(flags) for name, flags in table.items()}


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _field(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _sysfs_cache_bytes() -> dict[str, int]:
    """Data and unified caches of core 0; on most ARM boards the C library does not report them."""
    found = {}
    for index in sorted(_SYSFS_CACHES.glob("index*")):
        level, kind, size = (_entry(index / name) for name in ("level", "type", "size"))
        amount = _CACHE_SIZE.fullmatch(size)  # some kernels list the caches of a board without their sizes
        if kind in {"Data", "Unified"} and level and amount:
            found["l1d" if level == "1" else f"l{level}"] = int(amount[1]) * _CACHE_UNITS[amount[2]]
    return found


def _entry(path: Path) -> str:
    """An entry of sysfs; empty where the kernel has none."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
