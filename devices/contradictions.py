"""Figures of a device profile that cannot be true, alone or together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from sprat.devices.parts import Figure, Storage

if TYPE_CHECKING:
    from sprat.devices.profile import DeviceProfile

__all__ = ["contradictions"]

# Ten times and more what exists: beyond it, somebody mixed up units.
_MOST = {
    "total_bytes": 2**44,
    "capacity_bytes": 2**50,
    "memory_bytes": 2**42,
    "clock_ghz": 20,
    "peak_gbps": 20_000,
    "sequential_mbps": 200_000,
    "int8_ops_per_cycle": 65_536,
    "f32_ops_per_cycle": 65_536,
    "load_watts": 10_000,
    "throttle_celsius": 150,
    "sustained_share": 1,
}


def contradictions(profile: DeviceProfile) -> list[str]:
    """Everything that is impossible in ``profile``, as clauses of one message."""
    alone = [*_out_of_range(profile)]
    return alone or [*_of_memory(profile), *_of_storage(profile.storage), *_of_cores_and_power(profile)]


def _out_of_range(profile: DeviceProfile) -> Iterator[str]:
    for path, figure in _figures(profile, ""):
        most = _MOST.get(path.rpartition(".")[2], math.inf)
        if not math.isfinite(figure.value) or figure.value > most:
            yield f"{path} is {figure.value:,.10g}, expected at most {most:,}"


def _of_memory(profile: DeviceProfile) -> Iterator[str]:
    memory = profile.memory
    if profile.usable_bytes <= 0:
        yield f"the system keeps {memory.system_bytes.value:,.0f} of {memory.total_bytes.value:,.0f} bytes of memory"
    yield from _not_over("memory sustains", memory.sustained_gbps, "GB/s", memory.peak_gbps, "its peak")
    yield from _not_over("one core reads", memory.one_core_gbps, "GB/s", memory.read_gbps, "all cores")
    yield from _not_over("the cache has", memory.cache_bytes, "bytes", memory.total_bytes, "the memory")


def _of_storage(media: tuple[Storage, ...]) -> Iterator[str]:
    for medium in media:
        for name, rate in (("4 KiB", medium.random_4kib_mbps), ("1 MiB", medium.random_1mib_mbps)):
            what = f"{medium.kind} reads {name} at random with"
            yield from _not_over(what, rate, "MB/s", medium.sequential_mbps, "in sequence")


def _of_cores_and_power(profile: DeviceProfile) -> Iterator[str]:
    if profile.power and profile.power.load_watts:
        yield from _not_over("it idles at", profile.power.idle_watts, "W", profile.power.load_watts, "under load")
    if profile.compute is None and not all(cores.int8_gops and cores.f32_gflops for cores in profile.cores):
        yield "its cores have no int8_ops_per_cycle or no f32_ops_per_cycle, and no compute was measured"


def _not_over(what: str, figure: Figure | None, unit: str, limit: Figure, of: str) -> Iterator[str]:
    if figure is not None and figure.value > limit.value:
        yield f"{what} {figure.value:,.10g} {unit}, more than {of} ({limit.value:,.10g})"


def _figures(part: object, path: str) -> Iterator[tuple[str, Figure]]:
    """Every figure of a profile under its dotted name."""
    if isinstance(part, Figure):
        yield path, part
    elif isinstance(part, tuple):
        for index, each in enumerate(part):
            yield from _figures(each, f"{path}[{index}]")
    elif isinstance(part, msgspec.Struct):
        for name in part.__struct_fields__:
            yield from _figures(getattr(part, name), f"{path}.{name}" if path else name)
