"""Running a command under a device's cores, memory and storage speed, on a bigger machine.

What control groups can limit is limited; what they cannot (memory bandwidth, instruction sets) is named in
:attr:`~sprat.devices.bench.results.Emulation.not_emulated`, which stands in every record.
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
from sprat.devices.machine import cores_by_kind, memory_bytes
from sprat.devices.profile import DeviceProfile, Storage
from sprat.errors import DeviceError, EmulationError, unknown_name

__all__ = ["Emulator", "choose_storage", "plan_emulation"]

# The shell joins every group, then becomes the command: from its first instruction on, all limits hold.
_JOIN = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1/cgroup.procs" || exit 97; shift; n=$((n-1)); done; exec "$@"'
)
_WITH_SWAP = ("memory.swappiness", "memory.swap.max")  # a kernel that cannot swap has no such files


@dataclass(frozen=True, slots=True)
class Emulator:
    """Limits that are ready to be set, and their description for the records."""

    limits: Limits
    emulation: Emulation
    groups: tuple[ControlGroup, ...]

    @contextlib.contextmanager
    def limited(self) -> Iterator[list[str]]:
        """Make the groups and hand out a prefix for a command that shall live under them; remove them at the end.

        A janitor of its own process removes them even if this one is killed.

        Raises:
            EmulationError: the groups cannot be made, mostly for lack of rights.
        """
        folders = [str(group.folder) for group in self.groups]
        janitor = subprocess.Popen(
            [sys.executable, "-m", "sprat.devices.emulate.cleanup", *folders],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            for group in self.groups:
                _make(group)
            yield ["/bin/sh", "-c", _JOIN, "sprat", str(len(folders)), *folders]
        finally:
            assert janitor.stdin is not None
            janitor.stdin.close()
            janitor.wait()


def plan_emulation(profile: DeviceProfile, storage: Storage, file: Path) -> Emulator:
    """The limits of ``profile`` for a program that reads ``file``; no group is made yet.

    Args:
        profile: the device.
        storage: of the device, what the file is read from.
        file: whose disk is slowed down.

    Raises:
        EmulationError: no control groups.
    """
    tree = find_tree()
    here = sorted(os.sched_getaffinity(0))
    disk = _disk_of(file)
    limits = Limits(
        memory_bytes=min(profile.usable_bytes, memory_bytes()[0]),
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
    """The device's storage of this kind; the fastest by default, as plans assume.

    Raises:
        DeviceError: it has no such storage.
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
    ours = " ".join(name for name, there in cpu.features.items() if there)
    yield f"memory bandwidth: {profile.name} reads {memory.value:g} GB/s, this machine reads at its own speed"
    yield f"instructions: {kinds} has {features or 'no fast ones'}, this machine computes with {ours or 'plain code'}"
    if len(limits.cores) < profile.n_threads:
        yield f"cores: {profile.name} has {profile.n_threads} fast ones, this machine only {len(limits.cores)}"
    if limits.memory_bytes < profile.usable_bytes:
        yield f"memory: {profile.name} has {profile.usable_bytes:,} bytes for a model, this machine less"
    if limits.cpu_share == 1.0:
        yield "clock: this machine's is not known to be higher, so its cores' time is not cut"
    if limits.disk is None:
        yield "storage speed: the file lies on no disk that a control group can slow down"


def _make(group: ControlGroup) -> None:
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
    """``major:minor`` of the whole disk that holds ``file``; ``None`` for network, memory and layered file systems."""
    device = file.stat().st_dev
    node = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not node.exists():
        return None
    node = node.resolve()
    whole = node.parent if (node / "partition").exists() else node
    return (whole / "dev").read_text(encoding="ascii").strip()
