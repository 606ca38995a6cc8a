"""Memory and CPU time that the control groups of this process allow: a container's limits, in versions 1 and 2.

A limit of a group holds for every group below it, so the smallest of this process's group and its ancestors applies::

                       version 1                                      version 2
    memory             memory.limit_in_bytes                          memory.max, memory.high
    memory in use      memory.usage_in_bytes                          memory.current
    page cache in it   memory.stat: total_active_file, ...            memory.stat: active_file, inactive_file
    CPU quota          cpu.cfs_quota_us / cpu.cfs_period_us           cpu.max

Source: Documentation/admin-guide/cgroup-v1/memory.rst, scheduler/sched-bwc.rst and cgroup-v2.rst of the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sprat.devices.control_groups import group_mounts, group_paths, read_text

__all__ = ["container_available_bytes", "container_cpus", "container_memory_bytes", "own_groups"]

_PROC = Path("/proc/self")
_PAGE_CACHE = re.compile(r"^(total_)?(?:in)?active_file (\d+)$", re.MULTILINE)


def container_memory_bytes() -> int | None:
    """Most memory that this process and others in its control groups may use together; ``None`` without a limit."""
    return min((limit for _, limit in _memory_limits()), default=None)


def container_available_bytes() -> int | None:
    """Memory that this process can still allocate within its limit, page cache included; ``None`` without a limit."""
    return min((max(0, limit - _in_use(folder)) for folder, limit in _memory_limits()), default=None)


def container_cpus() -> float | None:
    """CPU time per time that the quota allows, 1.5 for one and a half cores; ``None`` without a quota."""
    return min(_quotas(), default=None)


def own_groups(controller: str, proc: Path | None = None) -> Iterator[Path]:
    """Folders of this process's group and of its ancestors with ``controller``, the group itself first.

    Inside a container the mount may begin at the container's own group, whose path on the host is the root of the
    mount; a path outside of the mount stands for the group that the mount begins at.

    Args:
        controller: ``"memory"`` or ``"cpu"``.
        proc: the folder of the process; ``/proc/self`` by default.
    """
    proc = proc or _PROC
    paths = group_paths(proc)
    for version, controllers, root, mount in group_mounts(proc):
        path = paths.get(controller if version == 1 else "")
        if path is None or (version == 1 and controller not in controllers):
            continue
        inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        own = mount / inside if (mount / inside).is_dir() else mount
        yield own
        yield from (folder for folder in own.parents if folder.is_relative_to(mount))


def _memory_limits() -> Iterator[tuple[Path, int]]:
    """Every limit of memory that applies, with its group's folder."""
    for folder in own_groups("memory"):
        for name in ("memory.limit_in_bytes", "memory.max", "memory.high"):
            text = read_text(folder / name).strip()
            if text.isdigit() and int(text) < 1 << 60:  # version 1 writes "no limit" as the largest number of pages
                yield folder, int(text)


def _in_use(folder: Path) -> int:
    """Bytes that the kernel cannot take back: usage without page cache."""
    usage = read_text(folder / "memory.usage_in_bytes") or read_text(folder / "memory.current")
    entries = _PAGE_CACHE.findall(read_text(folder / "memory.stat"))
    of_subtree = [size for total, size in entries if total] or [size for _, size in entries]
    return int(usage or 0) - sum(map(int, of_subtree))


def _quotas() -> Iterator[float]:
    for folder in own_groups("cpu"):
        words = read_text(folder / "cpu.max").split() or [
            *read_text(folder / "cpu.cfs_quota_us").split(),
            *read_text(folder / "cpu.cfs_period_us").split(),
        ]
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):  # "max" or -1: no quota
            yield int(words[0]) / int(words[1])
