"""Sensors of the machine: temperature, clock, power, energy, throttling; from sysfs and vcgencmd.

Any of them may be missing, or disappear while a test runs (an unloaded hwmon driver, a removed battery): a sensor that
fails once is not read again, and :attr:`Sensors.notes` gets a note.

::

    temperature   /sys/class/thermal/thermal_zone*/temp                       m°C
    clock         /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq       kHz
    power         /sys/class/hwmon/*/{power1_input | in*_input, curr*_input}  µW, or mV and mA: TI's INA monitors
    energy        /sys/class/powercap/intel-rapl:*/energy_uj                  µJ, wraps at max_energy_range_uj
    throttling    `vcgencmd get_throttled`; cpu*/thermal_throttle/core_throttle_count
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

__all__ = ["EnergyCounter", "Gauge", "Sensors", "Throttling"]

_VCGENCMD_SECONDS = 2.0
_WHOLE_BOARD = "VDD_IN"  # INA3221 rail of a Jetson that feeds all others


class _Sensor(Protocol):
    @property
    def name(self) -> str: ...

    def read(self) -> float: ...


_AnySensor = TypeVar("_AnySensor", bound=_Sensor)


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value read from one file, or the product of several."""

    name: str  # "thermal_zone0"
    paths: tuple[Path, ...]
    factor: float  # to °C, GHz, W or J

    def read(self) -> float:
        """The current value.

        Raises:
            OSError: the sensor disappeared.
            ValueError: the file does not contain a number.
        """
        return math.prod(float(path.read_text(encoding="ascii")) for path in self.paths) * self.factor


class EnergyCounter:
    """Joules since it was created, from a counter that wraps at its range; read it at least once per wrap."""

    def __init__(self, gauge: Gauge, range_joules: float) -> None:
        self.name = gauge.name
        self._gauge = gauge
        self._range = range_joules
        self._last = gauge.read()
        self._sum = 0.0

    def read(self) -> float:
        """Joules used so far; raises as :meth:`Gauge.read`."""
        now = self._gauge.read()
        self._sum += now - self._last if now >= self._last else now + self._range - self._last
        self._last = now
        return self._sum


@dataclass(frozen=True, slots=True)
class Throttling:
    """Whether the machine throttles now, and a count that changes when throttling begins."""

    now: bool
    count: int


class Sensors:
    """The sensors of this machine.

    Args:
        root: folder that contains ``sys``.

    Attributes:
        notes: one sentence per sensor that disappeared.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.notes: list[str] = []
        self._temperatures = list(_temperatures(root))
        self._clocks = list(_clocks(root))
        self._powers = list(_powers(root))
        self._energies = list(_energies(root))
        self._throttle_counts = list(_throttle_counts(root))
        self._vcgencmd = shutil.which("vcgencmd")

    def temperature_c(self) -> float | None:
        """Temperature of the hottest zone."""
        return max(self._read(self._temperatures), default=None)

    def clock_ghz(self) -> float | None:
        """Clock of the fastest core."""
        return max(self._read(self._clocks), default=None)

    def power_w(self) -> float | None:
        """Power of the whole board, or else of all monitored rails together."""
        values = self._read(self._powers)
        return sum(values) if values else None

    def energy_j(self) -> float | None:
        """Energy that all CPU packages used since this object was created."""
        values = self._read(self._energies)
        return sum(values) if values else None

    def throttling(self) -> Throttling | None:
        """Throttling so far: from the firmware on a Raspberry Pi, from the counters of an x86 CPU elsewhere."""
        if self._vcgencmd is not None:
            return self._ask_firmware(self._vcgencmd)
        values = self._read(self._throttle_counts)
        return Throttling(now=False, count=int(sum(values))) if values else None

    def _read(self, sensors: list[_AnySensor]) -> list[float]:
        """All values; a sensor that fails is removed with a note."""
        values = []
        for sensor in list(sensors):
            try:
                values.append(sensor.read())
            except (OSError, ValueError):
                self.notes.append(f"the sensor {sensor.name} disappeared during the test")
                sensors.remove(sensor)
        return values

    def _ask_firmware(self, command: str) -> Throttling | None:
        """Bits 0 to 3: under-voltage, capped clock, throttled, soft limit now; bits 16 to 19: the same since boot."""
        try:
            answer = subprocess.run(
                [command, "get_throttled"], capture_output=True, text=True, timeout=_VCGENCMD_SECONDS, check=True
            )
            bits = int(answer.stdout.partition("=")[2], 16)
        except (OSError, ValueError, subprocess.SubprocessError):
            self.notes.append("vcgencmd failed during the test")
            self._vcgencmd = None
            return None
        return Throttling(now=bool(bits & 0xF), count=bits >> 16)


def _temperatures(root: Path) -> Iterator[Gauge]:
    for path in sorted(root.glob("sys/class/thermal/thermal_zone*/temp")):
        yield from _present(Gauge(path.parent.name, (path,), 1e-3))


def _clocks(root: Path) -> Iterator[Gauge]:
    for path in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")):
        yield from _present(Gauge(f"clock of {path.parent.parent.name}", (path,), 1e-6))


def _powers(root: Path) -> Iterator[Gauge]:
    """One gauge for the whole board if a rail feeds all others, else one per rail."""
    rails: dict[str, Gauge] = {}
    for monitor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if _text(monitor / "name").startswith("ina"):
            rails |= dict(_rails(monitor))
    yield from [rails[_WHOLE_BOARD]] if _WHOLE_BOARD in rails else rails.values()


def _rails(monitor: Path) -> Iterator[tuple[str, Gauge]]:
    if (monitor / "power1_input").exists():
        yield monitor.name, Gauge(f"power of {monitor.name}", (monitor / "power1_input",), 1e-6)
        return
    for current in sorted(monitor.glob("curr*_input")):
        rail = current.name.removeprefix("curr").removesuffix("_input")
        gauge = Gauge(f"power of {monitor.name} rail {rail}", (monitor / f"in{rail}_input", current), 1e-6)
        for present in _present(gauge):
            yield _text(monitor / f"in{rail}_label") or gauge.name, present


def _energies(root: Path) -> Iterator[EnergyCounter]:
    """Packages only: their sub-domains (``intel-rapl:0:1``) are part of them."""
    for domain in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
        if domain.name.count(":") > 1:
            continue
        for gauge in _present(Gauge(f"energy of {domain.name}", (domain / "energy_uj",), 1e-6)):
            yield EnergyCounter(gauge, float(_text(domain / "max_energy_range_uj") or "inf") * 1e-6)


def _throttle_counts(root: Path) -> Iterator[Gauge]:
    for path in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")):
        yield from _present(Gauge(f"throttling of {path.parent.parent.name}", (path,), 1.0))


def _present(gauge: Gauge) -> Iterator[Gauge]:
    """The gauge, if it can be read: only root can read RAPL counters, and some zones have no sensor."""
    try:
        gauge.read()
    except (OSError, ValueError):
        return
    yield gauge


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
