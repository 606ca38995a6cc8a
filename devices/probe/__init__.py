"""Measures this machine as a :class:`~sprat.devices.profile.DeviceProfile`, in under a minute.

``devices`` does not import the kernels: the caller of :func:`probe` passes a function that measures them
(:func:`sprat.runtime.kernels.rates.measure_rates`).
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sprat.devices.bench.resources import BusyMeter
from sprat.devices.bench.sensors import Sensors
from sprat.devices.cpu import this_cpu
from sprat.devices.machine import available_bytes, cache_bytes, cores_by_kind, memory_bytes
from sprat.devices.parts import Basis, Compute, Memory, Sourced, Storage
from sprat.devices.probe.memory import read_rates
from sprat.devices.probe.storage import StorageRate, storage_kind, storage_rates
from sprat.devices.profile import DeviceProfile

__all__ = ["BUSY_SHARE", "KernelRates", "Probe", "StorageRate", "measure_again", "probe"]

BUSY_SHARE = 0.1
"""Share of the cores' time from which other programs disturb a measurement."""

_ATTEMPTS = 3
_AGAIN_SECONDS = 0.2
_AGAIN_BYTES = 192 << 20  # several times any CPU cache


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRates:
    """Rates of sprat's kernels with all threads and weights in the CPU's cache."""

    name: str  # "native avx512_vnni", "reference"
    int8_ops_per_s: float  # product of int4 weights with 512 tokens
    one_token_ops_per_s: float  # the same with one token
    f32_ops_per_s: float  # attention
    call_s: float  # an empty kernel call


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A profile and the measurements that it is made of."""

    profile: DeviceProfile
    kernels: KernelRates
    read_bytes_per_s: dict[int, float]  # by number of threads
    storage: tuple[StorageRate, ...]
    celsius_before: float | None  # hottest zone; None without a sensor
    celsius_after: float | None
    busy_share: float | None = None  # of the cores' time that other programs used meanwhile; None if not counted


def probe(
    name: str,
    folder: Path,
    measure_kernels: Callable[[int], KernelRates],
    report: Callable[[str], None] = lambda _: None,
) -> Probe:
    """Measure this machine.

    Args:
        name: name of the profile.
        folder: on the storage device that models will be read from; a file of 256 MiB is written and removed.
        measure_kernels: called with the number of threads.
        report: called with the name of each step.

    Raises:
        DeviceError: the folder cannot be written, or too few bytes are free.
    """
    cpu, sensors = this_cpu(), Sensors()
    celsius_before = sensors.temperature_c()
    total, available = memory_bytes(), available_bytes()
    reading, kernels, busy = _measure_quietly(cpu.n_cores, available, measure_kernels, report)
    disturbed = f" while other programs used {busy:.0%} of the cores" if busy and busy > BUSY_SHARE else ""
    report("storage")
    rates = storage_rates(folder)
    profile = DeviceProfile(
        name=name,
        title=f"{cpu.model}, {cpu.n_cores} cores, {total / 2**30:.0f} GiB",
        soc=cpu.model,
        cores=cores_by_kind(cpu),
        memory=_memory(reading, total, available, cache_bytes(cpu), disturbed),
        storage=(_storage(folder, rates),),
        compute=_compute(kernels, disturbed),
    )
    return Probe(
        profile=profile,
        kernels=kernels,
        read_bytes_per_s=reading,
        storage=rates,
        celsius_before=celsius_before,
        celsius_after=sensors.temperature_c(),
        busy_share=busy,
    )


def _measure_quietly(
    n_threads: int,
    available: int,
    measure_kernels: Callable[[int], KernelRates],
    report: Callable[[str], None],
) -> tuple[dict[int, float], KernelRates, float | None]:
    """Rates of memory and kernels, and the share of the cores' time that other programs used.

    Repeated while other programs are busy; of all attempts the quietest counts.
    """
    attempts = []
    for attempt in range(_ATTEMPTS):
        again = f", again ({attempt + 1} of {_ATTEMPTS}): other programs are busy" if attempt else ""
        meter = BusyMeter()
        report(f"memory{again}")
        reading = read_rates(n_threads, available)
        report(f"kernels{again}")
        kernels, busy = measure_kernels(n_threads), meter.share()
        attempts.append((reading, kernels, busy))
        if busy is None or busy <= BUSY_SHARE:
            break
    return min(attempts, key=lambda measured: measured[2] or 0.0)


def measure_again(profile: DeviceProfile, measure_kernels: Callable[[int], KernelRates]) -> DeviceProfile:
    """A probed profile with memory and kernels measured again: on a shared machine they drift within minutes.

    Reading memory takes a fifth of a second per number of threads.
    """
    cpu = this_cpu()
    total, available = memory_bytes(), available_bytes()
    reading = read_rates(cpu.n_cores, available, seconds=_AGAIN_SECONDS, max_bytes=_AGAIN_BYTES)
    memory = _memory(reading, total, available, cache_bytes(cpu))
    return msgspec.structs.replace(profile, memory=memory, compute=_compute(measure_kernels(cpu.n_cores)))


def _memory(reading: dict[int, float], total: int, available: int, cache: int, disturbed: str = "") -> Memory:
    best = max(reading, key=reading.__getitem__)
    return Memory(
        total_bytes=_reported(total, "/proc/meminfo"),
        system_bytes=_measured(max(total - available, 1), f"in use at the time of the probe{disturbed}"),
        peak_gbps=_measured(
            reading[best] / 1e9, f"read with {best} threads{disturbed}; the interface's peak is not known"
        ),
        sustained_gbps=_measured(reading[best] / 1e9, f"{best} threads{disturbed}"),
        one_core_gbps=_measured(min(reading[1], reading[best]) / 1e9, f"one thread{disturbed}"),
        cache_bytes=_reported(cache, "CPU caches; of a shared one, 4 MiB per core"),
    )


def _storage(folder: Path, rates: tuple[StorageRate, ...]) -> Storage:
    random_rates = {rate.block_bytes: rate.random_bytes_per_s for rate in rates}
    sequential_rate = max(max(rate.sequential_bytes_per_s, rate.random_bytes_per_s) for rate in rates)
    largest = max(size for size in random_rates if size <= 1 << 20)
    return Storage(
        kind=storage_kind(folder),
        capacity_bytes=_reported(shutil.disk_usage(folder).total, "size of the file system"),
        sequential_mbps=_measured(sequential_rate / 1e6, "uncached, queue depth 1"),
        random_4kib_mbps=_measured(random_rates[4 << 10] / 1e6, "uncached, queue depth 1"),
        random_1mib_mbps=_measured(random_rates[largest] / 1e6, "uncached, queue depth 1"),
    )


def _compute(kernels: KernelRates, disturbed: str = "") -> Compute:
    return Compute(
        int8_gops=_measured(kernels.int8_ops_per_s / 1e9, f"{kernels.name} kernels{disturbed}"),
        one_token_gops=_measured(kernels.one_token_ops_per_s / 1e9, f"{kernels.name} kernels{disturbed}"),
        f32_gflops=_measured(kernels.f32_ops_per_s / 1e9, f"{kernels.name} kernels{disturbed}"),
        call_us=_measured(kernels.call_s * 1e6, f"{kernels.name} kernels{disturbed}"),
    )


def _measured(value: float, how: str) -> Sourced:
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return Sourced(value=float(f"{value:.4g}"), basis=Basis.MEASURED, source=f"sprat devices probe, {today}: {how}")


def _reported(value: int, source: str) -> Sourced:
    return Sourced(value=value, basis=Basis.MEASURED, source=source)
