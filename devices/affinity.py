"""Which cores of this machine are a profile's fast cores, so that no thread runs on a little core."""

from __future__ import annotations

from collections.abc import Mapping

from sprat.devices.profile import DeviceProfile

__all__ = ["fast_core_ids"]

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
