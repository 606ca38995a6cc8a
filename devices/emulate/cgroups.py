"""Linux control groups, versions 1 and 2: their folders, and the files that set each limit.

Version 1 has one tree per controller, version 2 one tree::

    version 1, below OWN/sprat-PID                                version 2, below PARENT/sprat-PID
    memory/.../memory.limit_in_bytes                              memory.max
    cpuset/.../cpuset.cpus, cpuset.mems                           cpuset.cpus
    cpu/.../cpu.cfs_quota_us, cpu.cfs_period_us                   cpu.max
    blkio/.../blkio.throttle.read_bps_device                      io.max

where OWN is the group of this process. In version 2 a group that enables controllers for its children must not contain
processes, so PARENT is the nearest ancestor of OWN without any: often the root, which is exempt from that rule.

Source: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sprat.devices.control_groups import group_mounts, group_paths, read_text
from sprat.errors import EmulationError

__all__ = ["ControlGroup", "Limits", "Tree", "find_tree", "plan_groups"]

_PERIOD_US = 100_000  # of the CPU quota; the kernel's default
_CONTROLLERS_V1 = ("memory", "cpuset", "cpu", "blkio")
_CONTROLLERS_V2 = ("memory", "cpuset", "cpu", "io")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Resource limits of a group of processes."""

    memory_bytes: int  # includes page cache
    cores: tuple[int, ...]
    cpu_share: float  # of the time of each of these cores, 0 to 1
    disk: str | None = None  # "major:minor"
    read_bytes_per_second: int | None = None  # of that disk


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A group to create: its folder, and the files to write, in order."""

    folder: Path
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """The control groups of this machine: version, and controller -> folder of this process's group."""

    version: int
    own: Mapping[str, Path]
    root: Path | None = None  # version 2: mount point


def find_tree(proc: Path = Path("/proc/self")) -> Tree:
    """The control group tree that has all controllers.

    Raises:
        EmulationError: neither version has them all; the message names the missing ones.
    """
    mounts, groups = list(group_mounts(proc)), group_paths(proc)
    legacy = {
        controller: mount.folder / path.lstrip("/")
        for controller, path in groups.items()
        for mount in mounts
        if mount.version == 1 and controller in mount.controllers
    }
    if not (missing := [name for name in _CONTROLLERS_V1 if name not in legacy]):
        return Tree(1, {name: legacy[name] for name in _CONTROLLERS_V1})
    for root in (mount.folder for mount in mounts if mount.version == 2):
        if not (absent := set(_CONTROLLERS_V2) - set(read_text(root / "cgroup.controllers").split())):
            return Tree(2, dict.fromkeys(_CONTROLLERS_V2, root / groups[""].lstrip("/")), root)
        missing = sorted(absent)
    raise EmulationError(
        f"control groups: this kernel lacks {', '.join(missing)}; emulation needs Linux with "
        f"{', '.join(_CONTROLLERS_V2)} (on a Raspberry Pi add cgroup_enable=memory to cmdline.txt)"
    )


def plan_groups(tree: Tree, limits: Limits, name: str) -> list[ControlGroup]:
    """The groups called ``name`` that impose ``limits``; a process must join all of them.

    Raises:
        EmulationError: version 2 only: no ancestor of this process's group can enable all controllers.
    """
    return _plan_v1(tree, limits, name) if tree.version == 1 else [_plan_v2(tree, limits, name)]


def _plan_v1(tree: Tree, limits: Limits, name: str) -> list[ControlGroup]:
    quota = int(limits.cpu_share * len(limits.cores) * _PERIOD_US)
    files: dict[str, tuple[tuple[str, str], ...]] = {
        "memory": (("memory.limit_in_bytes", str(limits.memory_bytes)), ("memory.swappiness", "0")),
        "cpuset": (
            ("cpuset.cpus", _list(limits.cores)),
            (
                "cpuset.mems",
                read_text(tree.own["cpuset"] / "cpuset.mems").strip(),
            ),  # empty in a new group, which no process can join then
        ),
        "cpu": (("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", str(quota))),
    }
    if limits.disk and limits.read_bytes_per_second:
        files["blkio"] = (("blkio.throttle.read_bps_device", f"{limits.disk} {limits.read_bytes_per_second}"),)
    by_folder: dict[Path, tuple[tuple[str, str], ...]] = {}
    for controller, entries in files.items():  # some systems mount two controllers in one tree
        folder = tree.own[controller] / name
        by_folder[folder] = by_folder.get(folder, ()) + entries
    return [ControlGroup(folder, entries) for folder, entries in by_folder.items()]


def _plan_v2(tree: Tree, limits: Limits, name: str) -> ControlGroup:
    quota = int(limits.cpu_share * len(limits.cores) * _PERIOD_US)
    files = [
        ("memory.max", str(limits.memory_bytes)),
        ("memory.swap.max", "0"),
        ("cpuset.cpus", _list(limits.cores)),
        ("cpu.max", f"{quota} {_PERIOD_US}"),
    ]
    if limits.disk and limits.read_bytes_per_second:
        files.append(("io.max", f"{limits.disk} rbps={limits.read_bytes_per_second}"))
    return ControlGroup(_parent(tree) / name, tuple(files))


def _parent(tree: Tree) -> Path:
    """The nearest ancestor of this process's group that enables all controllers for its children, or can."""
    assert tree.root is not None, "version 2 has a root"
    own = tree.own["memory"]
    for folder in (own, *own.parents):
        if folder != tree.root and read_text(folder / "cgroup.procs").split():
            continue  # it contains processes, so it cannot enable controllers
        wanted = set(_CONTROLLERS_V2) - set(read_text(folder / "cgroup.subtree_control").split())
        if not wanted:
            return folder
        if wanted <= set(read_text(folder / "cgroup.controllers").split()) and _enable(folder, wanted):
            return folder
        if folder == tree.root:
            break
    raise EmulationError(
        f"control groups: no group from {own} up to {tree.root} can enable controllers for its children; run as root, "
        "or under `systemd-run --user --scope -p Delegate=yes`"
    )


def _enable(folder: Path, controllers: set[str]) -> bool:
    try:
        (folder / "cgroup.subtree_control").write_text(
            " ".join(f"+{name}" for name in sorted(controllers)), encoding="ascii"
        )
    except OSError:
        return False
    return True


def _list(cores: tuple[int, ...]) -> str:
    return ",".join(map(str, cores))
