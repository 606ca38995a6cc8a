"""Reads the sensors once per second while a test runs."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass
from typing import Self

from sprat.devices.bench.results import Moment
from sprat.devices.bench.sensors import Sensors, Throttling

__all__ = ["SensorLog"]

_MAX_MOMENTS = 600  # per record; a longer run keeps every second reading, then every third


@dataclass(frozen=True, slots=True)
class _Sample:
    moment: Moment
    energy_j: float | None
    throttling: Throttling | None


class SensorLog:
    """Reads the sensors in a separate thread, for the duration of a ``with`` block.

    Args:
        sensors: sensors of this machine.
        interval_s: seconds between two readings.
    """

    def __init__(self, sensors: Sensors, interval_s: float = 1.0) -> None:
        self._sensors = sensors
        self._interval_s = interval_s
        self._samples: list[_Sample] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sprat sensors", daemon=True)

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._samples.append(self._sample())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._samples.append(self._sample())

    @property
    def before(self) -> Moment:
        """The first reading."""
        return self._samples[0].moment

    @property
    def after(self) -> Moment:
        """The last reading so far."""
        return self._samples[-1].moment

    def moments(self) -> tuple[Moment, ...]:
        """The readings with at least one value; evenly thinned out if there are very many."""
        readings = [sample.moment for sample in self._samples if sample.moment != Moment(seconds=sample.moment.seconds)]
        return tuple(readings[:: 1 + len(readings) // _MAX_MOMENTS])

    def throttled(self) -> bool | None:
        """Whether the machine throttled during the log; ``None`` if no sensor reports it."""
        states = [sample.throttling for sample in self._samples if sample.throttling is not None]
        if not states:
            return None
        return any(state.now for state in states) or len({state.count for state in states}) > 1

    def joules(self) -> float | None:
        """Energy used during the log: from a counter, else power integrated over time; ``None`` without sensors."""
        first, last = self._samples[0].energy_j, self._samples[-1].energy_j
        if first is not None and last is not None:
            return last - first
        powers = [(sample.moment.seconds, sample.moment.power_w) for sample in self._samples]
        known = [(seconds, watts) for seconds, watts in powers if watts is not None]
        if len(known) < len(powers):  # no sensor, or one disappeared and the sum would be too low
            return None
        return sum((to - since) * (p + q) / 2 for (since, p), (to, q) in itertools.pairwise(known))

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._samples.append(self._sample())

    def _sample(self) -> _Sample:
        sensors = self._sensors
        moment = Moment(
            seconds=round(time.monotonic() - self._started, 3),
            temperature_c=sensors.temperature_c(),
            clock_ghz=sensors.clock_ghz(),
            power_w=sensors.power_w(),
        )
        return _Sample(moment, sensors.energy_j(), sensors.throttling())
