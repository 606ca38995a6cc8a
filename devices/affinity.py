"""Which cores of this machine are a profile's fast ones, so that no thread waits on a little core."""

from __future__ import annotations

from collections.abc import Mapping

from sprat.devices.profile import DeviceProfile

__all__ = ["fast_core_ids"]

_CLOCK_TOLERANCE = 0.1  # of the profile's: governors and boards cap a clock by a little


def fast_core_ids(profile: DeviceProfile, clocks_ghz: Mapping[int, float]) -> tuple[int, ...]:
    """The cores to keep threads on, the fastest first; none where the system may choose as well.

    Args:
        profile: the device that a plan was made for.
        clocks_ghz: highest clock of each core of this machine; see :func:`~sprat.devices.machine.core_clocks`.

    Returns:
        Ids of cores, or ``()``: all of the profile's cores are worth a thread, or this machine is not that device, for
        its cores differ in number or clock.
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
