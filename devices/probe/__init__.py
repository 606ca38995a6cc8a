"""This machine as a :class:`~sprat.devices.profile.DeviceProfile`, measured in under a minute.

The kernels are not this room's: whoever calls :func:`probe` hands in what they reach
(:func:`sprat.runtime.kernels.rates.measure_rates`).
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sprat.devices.bench.sensors import Sensors
from sprat.devices.cpu import this_cpu
from sprat.devices.machine import cache_bytes, cores_by_kind, memory_bytes
from sprat.devices.parts import Basis, Compute, Figure, Memory, Storage
from sprat.devices.probe.memory import read_rates
from sprat.devices.probe.storage import StorageRate, medium_of, storage_rates
from sprat.devices.profile import DeviceProfile

__all__ = ["KernelRates", "Probe", "StorageRate", "measure_again", "probe"]

_AGAIN_SECONDS = 0.2
_AGAIN_BYTES = 192 << 20  # several times any cache


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRates:
    """What sprat's kernels reach with all threads, weights in the cache."""

    name: str  # "native avx512_vnni", "reference"
    int8_ops_per_s: float  # 512 tokens times int4 blocks
    one_token_ops_per_s: float
    f32_ops_per_s: float  # attention
    call_s: float  # a call with next to nothing to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A profile and the measurements that it sums up."""

    profile: DeviceProfile
    kernels: KernelRates
    read_bytes_per_s: dict[int, float]  # by number of threads
    storage: tuple[StorageRate, ...]
    celsius_before: float | None  # of the hottest zone; None without a sensor
    celsius_after: float | None


def probe(
    name: str,
    folder: Path,
    measure_kernels: Callable[[int], KernelRates],
    report: Callable[[str], None] = lambda _: None,
) -> Probe:
    """Measure this machine.

    Args:
        name: of the profile.
        folder: on the medium that models will be read from; a file of 256 MB is written and removed.
        measure_kernels: called with the number of threads.
        report: called with the name of each step.

    Raises:
        DeviceError: the folder cannot be written, or has too little room.
    """
    cpu, sensors = this_cpu(), Sensors()
    celsius_before = sensors.temperature_c()
    total_bytes, available_bytes = memory_bytes()
    report("memory")
    reading = read_rates(cpu.n_cores, available_bytes)
    report("kernels")
    kernels = measure_kernels(cpu.n_cores)
    report("storage")
    media = storage_rates(folder)
    profile = DeviceProfile(
        name=name,
        title=f"{cpu.model}, {cpu.n_cores} cores, {total_bytes / 2**30:.0f} GiB",
        soc=cpu.model,
        cores=cores_by_kind(cpu),
        memory=_memory(reading, total_bytes, available_bytes, cache_bytes(cpu)),
        storage=(_storage(folder, media),),
        compute=_compute(kernels),
    )
    return Probe(
        profile=profile,
        kernels=kernels,
        read_bytes_per_s=reading,
        storage=media,
        celsius_before=celsius_before,
        celsius_after=sensors.temperature_c(),
    )


def measure_again(profile: DeviceProfile, measure_kernels: Callable[[int], KernelRates]) -> DeviceProfile:
    """A probed profile with memory and kernels measured anew: on a shared machine they drift within minutes.

    Memory is looked at for a fifth of a second per number of threads.
    """
    cpu = this_cpu()
    total_bytes, available_bytes = memory_bytes()
    reading = read_rates(cpu.n_cores, available_bytes, seconds=_AGAIN_SECONDS, most_bytes=_AGAIN_BYTES)
    memory = _memory(reading, total_bytes, available_bytes, cache_bytes(cpu))
    return msgspec.structs.replace(profile, memory=memory, compute=_compute(measure_kernels(cpu.n_cores)))


def _memory(reading: dict[int, float], total_bytes: int, available_bytes: int, cache: int) -> Memory:
    best = max(reading, key=reading.__getitem__)
    return Memory(
        total_bytes=_told(total_bytes, "/proc/meminfo"),
        system_bytes=_measured(max(total_bytes - available_bytes, 1), "in use when this was measured"),
        peak_gbps=_measured(
            reading[best] / 1e9, f"as much as was read, with {best} threads; the interface is not known"
        ),
        sustained_gbps=_measured(reading[best] / 1e9, f"{best} threads"),
        one_core_gbps=_measured(min(reading[1], reading[best]) / 1e9, "one thread"),
        cache_bytes=_told(cache, "the processor's caches, of a shared one 4 MiB per core"),
    )


def _storage(folder: Path, rates: tuple[StorageRate, ...]) -> Storage:
    at_random = {rate.block_bytes: rate.random_bytes_per_s for rate in rates}
    in_sequence = max(max(rate.sequential_bytes_per_s, rate.random_bytes_per_s) for rate in rates)
    largest = max(size for size in at_random if size <= 1 << 20)
    return Storage(
        kind=medium_of(folder),
        capacity_bytes=_told(shutil.disk_usage(folder).total, "the file system's size"),
        sequential_mbps=_measured(in_sequence / 1e6, "past the page cache, one read at a time"),
        random_4kib_mbps=_measured(at_random[4 << 10] / 1e6, "past the page cache, one read at a time"),
        random_1mib_mbps=_measured(at_random[largest] / 1e6, "past the page cache, one read at a time"),
    )


def _compute(kernels: KernelRates) -> Compute:
    return Compute(
        int8_gops=_measured(kernels.int8_ops_per_s / 1e9, f"{kernels.name} kernels"),
        one_token_gops=_measured(kernels.one_token_ops_per_s / 1e9, f"{kernels.name} kernels"),
        f32_gflops=_measured(kernels.f32_ops_per_s / 1e9, f"{kernels.name} kernels"),
        call_us=_measured(kernels.call_s * 1e6, f"{kernels.name} kernels"),
    )


def _measured(value: float, how: str) -> Figure:
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return Figure(value=float(f"{value:.4g}"), basis=Basis.MEASURED, source=f"sprat devices probe, {today}: {how}")


def _told(value: int, source: str) -> Figure:
    return Figure(value=value, basis=Basis.MEASURED, source=source)
