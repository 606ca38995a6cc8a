"""The control groups of a process, from ``/proc/PID/mountinfo`` and ``/proc/PID/cgroup``.

Source: proc_pid_mountinfo(5) and cgroups(7) of the Linux manual.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["GroupMount", "group_mounts", "group_paths", "read_text"]


class GroupMount(NamedTuple):
    """A mounted tree of control groups.

    Attributes:
        version: of control groups, 1 or 2.
        controllers: version 1: the options of the mount, which name its controllers.
        root: path of the group that the mount begins at; not ``/`` inside a container.
        folder: the mount point.
    """

    version: int
    controllers: tuple[str, ...]
    root: Path
    folder: Path


def group_mounts(proc: Path) -> Iterator[GroupMount]:
    """All mounts of control groups that the process of the folder ``proc`` sees.

    A line: ``36 35 98:0 /root /mount opts ... - type source opts``.
    """
    for line in read_text(proc / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = (*after.split(), "", "", "")[:3]
        if kind.startswith("cgroup"):
            root, folder = (Path(field.replace("\\040", " ")) for field in before.split()[3:5])
            yield GroupMount(2 if kind == "cgroup2" else 1, tuple(options.split(",")), root, folder)


def group_paths(proc: Path) -> dict[str, str]:
    """Controller -> path of the process's group in version 1, and ``""`` -> its path in version 2.

    A line: ``4:cpu,cpuacct:/path``.
    """
    lines = (line.split(":", 2) for line in read_text(proc / "cgroup").splitlines())
    return {name: path for _, controllers, path in lines for name in controllers.split(",")}


def read_text(path: Path) -> str:
    """The file's text; empty where there is none, or none that this process may read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
