"""Cores for threads: the fast ones of this process, or of a device, so that no thread runs on a little core."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sprat.devices.container import container_cpus
from sprat.devices.machine import core_speeds
from sprat.devices.profile import MIN_CORE_SPEED, DeviceProfile

__all__ = ["Threads", "default_threads", "fast_core_ids"]

_CLOCK_TOLERANCE = 0.1  # relative; governors and boards cap clocks slightly


def fast_core_ids(profile: DeviceProfile, clocks_ghz: Mapping[int, float]) -> tuple[int, ...]:
    """The cores to pin threads to, fastest first; empty where pinning is not needed.

    Args:
        profile: the device that the plan is for.
        clocks_ghz: highest clock of each core of this machine; see :func:`~sprat.devices.machine.core_clocks`.

    Returns:
        Core ids, or ``()`` if all cores of the profile are fast, or if this machine is another device: the number of
        its cores or their clocks differ.
    """
    if len(profile.fast_cores) == len(profile.cores):
        return ()
    expected = sorted((kind.clock_ghz.value for kind in profile.cores for _ in range(kind.count)), reverse=True)
    found = sorted(clocks_ghz, key=lambda core: (-clocks_ghz[core], core))
    if len(found) != len(expected):
        return ()
    pairs = zip((clocks_ghz[core] for core in found), expected, strict=True)
    if any(abs(clock - published) > _CLOCK_TOLERANCE * published for clock, published in pairs):
        return ()
    return tuple(found[: profile.n_threads])


class Threads(msgspec.Struct, frozen=True):
    """Threads to run with where the user gives none."""

    count: int
    cores: tuple[int, ...] = ()  # to pin them to, fastest first; empty where pinning is not needed


def default_threads() -> Threads:
    """One thread per fast core that this process may use, and no more than the CPU quota of its container.

    A quota is rounded down, to one at least: threads that wait for each other lose more by the kernel's throttling than
    a part of a core adds.
    """
    speeds = core_speeds()
    fastest = max(speeds.values())
    fast = sorted((core for core in speeds if speeds[core] >= MIN_CORE_SPEED * fastest), key=lambda c: (-speeds[c], c))
    quota = container_cpus()
    count = len(fast) if quota is None else max(1, min(len(fast), int(quota)))
    uneven = len(set(speeds.values())) > 1 and count < len(speeds)
    return Threads(count, tuple(fast[:count]) if uneven else ())
