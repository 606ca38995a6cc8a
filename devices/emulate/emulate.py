"""Runs a command with a device's cores, memory and storage speed on a larger machine.

Control groups impose these limits. What they cannot limit (memory bandwidth, instruction sets) is listed in
:attr:`~sprat.devices.bench.results.Emulation.not_emulated` of every record.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sprat.devices.bench.results import Emulation
from sprat.devices.cpu import this_cpu
from sprat.devices.emulate.cgroups import ControlGroup, Limits, find_tree, plan_groups
from sprat.devices.machine import block_device, cores_by_kind, memory_bytes
from sprat.devices.profile import DeviceProfile, Storage
from sprat.errors import DeviceError, EmulationError, unknown_name
from sprat.text import human_bytes

__all__ = ["Emulator", "choose_storage", "plan_emulation"]

# The shell joins every group, then execs the command, so that all limits hold from its first instruction on.
_JOIN = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1/cgroup.procs" || exit 97; shift; n=$((n-1)); done; exec "$@"'
)
_WITH_SWAP = ("memory.swappiness", "memory.swap.max")  # a kernel without swap has no such files


@dataclass(frozen=True, slots=True)
class Emulator:
    """Limits to impose, and their description for the records."""

    limits: Limits
    emulation: Emulation
    groups: tuple[ControlGroup, ...]

    @contextlib.contextmanager
    def limited(self) -> Iterator[list[str]]:
        """Create the groups and yield a prefix for commands to run in them; remove them at the end.

        A separate cleanup process removes them even if this one is killed.

        Raises:
            EmulationError: the groups cannot be created, usually for lack of permission.
        """
        folders = [str(group.folder) for group in self.groups]
        cleanup = subprocess.Popen(
            [sys.executable, "-P", "-m", "sprat.devices.emulate.cleanup", *folders],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            for group in self.groups:
                _create(group)
            yield ["/bin/sh", "-c", _JOIN, "sprat", str(len(folders)), *folders]
        finally:
            assert cleanup.stdin is not None
            cleanup.stdin.close()
            cleanup.wait()


def plan_emulation(profile: DeviceProfile, storage: Storage, file: Path) -> Emulator:
    """The limits of ``profile`` for a program that reads ``file``; no group is created yet.

    Args:
        profile: the device.
        storage: storage device of the profile that the file is read from.
        file: its disk gets the read limit.

    Raises:
        EmulationError: this machine has no control groups with the controllers that are needed.
    """
    tree = find_tree()
    here = sorted(os.sched_getaffinity(0))
    disk = _disk_of(file)
    limits = Limits(
        memory_bytes=min(profile.usable_bytes, memory_bytes()),
        cores=tuple(here[: profile.n_threads]),
        cpu_share=min(1.0, profile.fast_cores[0].clock_ghz.value / cores_by_kind(this_cpu())[0].clock_ghz.value),
        disk=disk,
        read_bytes_per_second=int(storage.sequential_mbps.value * 1e6) if disk else None,
    )
    emulation = Emulation(
        cgroup_version=tree.version,
        memory_bytes=limits.memory_bytes,
        n_cores=len(limits.cores),
        cpu_share=limits.cpu_share,
        read_bytes_per_second=limits.read_bytes_per_second,
        storage=storage.kind,
        not_emulated=tuple(_not_emulated(profile, limits)),
    )
    return Emulator(limits, emulation, tuple(plan_groups(tree, limits, f"sprat-{os.getpid()}")))


def choose_storage(profile: DeviceProfile, kind: str | None) -> Storage:
    """The profile's storage device of this kind; by default the fastest, as in a plan.

    Raises:
        DeviceError: the profile has no such storage device.
    """
    by_kind = {storage.kind.lower(): storage for storage in profile.storage}
    if kind is None:
        return max(profile.storage, key=lambda storage: storage.sequential_mbps.value)
    if kind.lower() not in by_kind:
        raise DeviceError(unknown_name(f"storage of {profile.name}", kind.lower(), by_kind))
    return by_kind[kind.lower()]


def _not_emulated(profile: DeviceProfile, limits: Limits) -> Iterator[str]:
    cpu, memory = this_cpu(), profile.memory.read_gbps
    kinds = ", ".join(dict.fromkeys(cores.kind for cores in profile.cores))
    features = " ".join(sorted({name for cores in profile.cores for name in cores.features}))
    ours = " ".join(name for name, present in cpu.features.items() if present)
    yield f"memory bandwidth: {profile.name} reads {memory.value:g} GB/s, this machine is not limited"
    yield f"instruction sets: {kinds} has {features or 'no SIMD'}, this machine uses {ours or 'no SIMD'}"
    if len(limits.cores) < profile.n_threads:
        yield f"cores: {profile.name} has {profile.n_threads} fast cores, this machine {len(limits.cores)}"
    if limits.memory_bytes < profile.usable_bytes:
        yield f"memory: {profile.name} has {human_bytes(profile.usable_bytes)} for a model, this machine less"
    if limits.cpu_share == 1.0:
        yield "clock: this machine's is not known to be higher, so CPU time is not limited"
    if limits.disk is None:
        yield "storage speed: the file is not on a disk that a control group can limit"


def _create(group: ControlGroup) -> None:
    try:
        group.folder.mkdir()
        for name, value in group.files:
            if name not in _WITH_SWAP or (group.folder / name).exists():
                (group.folder / name).write_text(value, encoding="ascii")
    except OSError as error:
        raise EmulationError(
            f"control group {group.folder}: cannot be set up ({error.strerror}: {error.filename}); emulation needs "
            "root or a delegated group: use sudo, or `systemd-run --user --scope -p Delegate=yes`"
        ) from error


def _disk_of(file: Path) -> str | None:
    """``major:minor`` of the disk that holds ``file``; ``None`` for network, memory and overlay file systems."""
    node = block_device(file)
    if node is None:
        return None
    whole = node.parent if (node / "partition").exists() else node
    return (whole / "dev").read_text(encoding="ascii").strip()
