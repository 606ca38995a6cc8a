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
    paths = dict(_paths(_read(proc / "cgroup")))
    for kind, controllers, root, mount in _mounts(_read(proc / "mountinfo")):
        path = paths.get(controller) if kind == "cgroup" else paths.get("")
        if path is None or (kind == "cgroup" and controller not in controllers):
            continue
        inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        own = mount / inside if (mount / inside).is_dir() else mount
        yield own
        yield from (folder for folder in own.parents if folder.is_relative_to(mount))


def _memory_limits() -> Iterator[tuple[Path, int]]:
    """Every limit of memory that applies, with its group's folder."""
    for folder in own_groups("memory"):
        for name in ("memory.limit_in_bytes", "memory.max", "memory.high"):
            text = _read(folder / name).strip()
            if text.isdigit() and int(text) < 1 << 60:  # version 1 writes "no limit" as the largest number of pages
                yield folder, int(text)


def _in_use(folder: Path) -> int:
    """Bytes that the kernel cannot take back: usage without page cache."""
    usage = _read(folder / "memory.usage_in_bytes") or _read(folder / "memory.current")
    entries = _PAGE_CACHE.findall(_read(folder / "memory.stat"))
    of_subtree = [size for total, size in entries if total] or [size for _, size in entries]
    return int(usage or 0) - sum(map(int, of_subtree))


def _quotas() -> Iterator[float]:
    for folder in own_groups("cpu"):
        words = _read(folder / "cpu.max").split() or [
            *_read(folder / "cpu.cfs_quota_us").split(),
            *_read(folder / "cpu.cfs_period_us").split(),
        ]
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):  # "max" or -1: no quota
            yield int(words[0]) / int(words[1])


def _paths(cgroup: str) -> Iterator[tuple[str, str]]:
    """Controller ("" in version 2) and path of the group: ``4:cpu,cpuacct:/path``."""
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        yield from ((name, path) for name in controllers.split(","))


def _mounts(mountinfo: str) -> Iterator[tuple[str, list[str], Path, Path]]:
    """Type, controllers, root and mount point of every tree: ``36 35 98:0 /root /mount opts - type source opts``."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = (*after.split(), "", "", "")[:3]
        if kind.startswith("cgroup"):
            root, mount = (field.replace("\\040", " ") for field in before.split()[3:5])
            yield kind, options.split(","), Path(root), Path(mount)


def _read(path: Path) -> str:
    """The file's text; empty where there is none, or none that this process may read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
