"""The benchmark procedure: cool-down, warm-up, repetitions with sensors, and one record per test.

It does not import the runtime: it measures any :class:`Subject`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sprat.devices.bench.resources import BusyMeter, cached_bytes, peak_rss_bytes, storage_read_bytes, this_machine
from sprat.devices.bench.results import BenchTest, Emulation, Label, MeasuredModel, Measurement, Setting, Sustained
from sprat.devices.bench.sensor_log import SensorLog
from sprat.devices.bench.sensors import Sensors
from sprat.devices.bench.statistics import percentiles, spread

__all__ = ["MAX_SPREAD", "Bench", "Procedure", "Setup", "Subject"]

MAX_SPREAD = 0.10  # standard deviation over mean; a larger one gives a note
_MAX_BUSY = 0.10  # CPU share of other programs; a larger one gives a note
_STABLE = 0.05  # relative difference of two runs that ends the warm-up
_WARM_UP_RUNS = 5
_WARM_UP_SECONDS = 60.0
_WARM_UP_TOKENS = 16  # generated tokens per warm-up run
_COOL_C = 2.0  # tolerance above the temperature before the first test


class Subject(Protocol):
    """The sequence that is timed: it can be extended and truncated, and chooses its tokens itself."""

    def rewind(self, depth: int) -> None:
        """Bring the sequence to ``depth`` tokens: truncate it, or process the missing tokens."""

    def prefill(self, n_tokens: int) -> None:
        """Process ``n_tokens`` tokens in prefill, logits included."""

    def decode(self) -> None:
        """Process one token, logits included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """How a test is run."""

    repetitions: int = 5
    cooldown_s: float = 60.0  # longest wait before a test; without a sensor there is none
    sustained_s: float = 0.0  # length of a sustained run after the repetitions; 0 for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Fields that all records of one run share; see :class:`~sprat.devices.bench.results.Measurement`."""

    model: MeasuredModel
    backend: str
    threads: int
    path: Path | None = None  # the model file
    label: Label = Label.MEASURED
    device: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)
    memory_map: dict[str, int] = field(default_factory=dict)
    load_ms: float | None = None
    emulation: Emulation | None = None


class Bench:
    """Runs tests on one subject.

    Args:
        subject: what to measure.
        setup: fields of the records.
        procedure: repetitions, cool-down, sustained run.
        sensors: sensors of this machine by default.
    """

    def __init__(
        self, subject: Subject, setup: Setup, procedure: Procedure = Procedure(), sensors: Sensors | None = None
    ) -> None:
        self._subject = subject
        self._setup = setup
        self._procedure = procedure
        self._sensors = sensors or Sensors()
        self._cool_c = self._sensors.temperature_c()

    def measure(self, test: BenchTest) -> Measurement:
        """Run one test: cool down, warm up, repeat, and run sustained if the procedure says so."""
        self._cool_down()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        notes = [] if self._warm_up(test) else [f"not stable after {_WARM_UP_RUNS} warm-up runs"]
        busy, read_before = BusyMeter(), storage_read_bytes()
        with SensorLog(self._sensors) as log:
            steps = [self._run(test) for _ in range(self._procedure.repetitions)]
        busy_share, read_after = busy.share(), storage_read_bytes()
        samples = tuple(test.n_tokens / sum(seconds) for seconds in steps)
        times = percentiles([1e3 * second for seconds in steps for second in seconds])
        joules = log.joules()
        sustained = self._sustain(test) if self._procedure.sustained_s else None
        notes += _warnings(samples, busy_share, throttled=log.throttled())
        notes += self._take_sensor_notes()
        setup = self._setup
        return Measurement(
            label=setup.label,
            device=setup.device,
            started=started,
            machine=this_machine(busy_share),
            versions=setup.versions,
            model=setup.model,
            backend=setup.backend,
            threads=setup.threads,
            settings=setup.settings,
            work=test,
            samples_tps=samples,
            load_ms=setup.load_ms,
            ttft_ms=times if test.n_prompt else None,
            inter_token_ms=times if test.n_gen else None,
            peak_rss_bytes=peak_rss_bytes(),
            page_cache_bytes=cached_bytes(setup.path) if setup.path else None,
            storage_read_bytes=None if read_before is None or read_after is None else read_after - read_before,
            memory_map=setup.memory_map,
            before=log.before,
            after=log.after,
            sensors=log.moments(),
            throttled=log.throttled(),
            joules_per_token=None if joules is None else joules / (test.n_tokens * len(steps)),
            sustained=sustained,
            emulation=setup.emulation,
            notes=tuple(notes),
        )

    def _run(self, test: BenchTest) -> list[float]:
        """Seconds of each step of one repetition: one step for a prompt, one per generated token."""
        subject = self._subject
        subject.rewind(test.depth)
        seconds = [_time(lambda: subject.prefill(test.n_prompt))] if test.n_prompt else []
        return seconds + [_time(subject.decode) for _ in range(test.n_gen)]

    def _warm_up(self, test: BenchTest) -> bool:
        """Run until two successive runs agree; returns whether they did."""
        short = BenchTest.decode(min(test.n_gen, _WARM_UP_TOKENS), test.depth) if test.n_gen else test
        self._subject.rewind(test.depth)  # not part of the warm-up
        end = time.monotonic() + _WARM_UP_SECONDS
        last = math.inf
        for _ in range(_WARM_UP_RUNS):
            seconds = sum(self._run(short))
            if abs(seconds - last) <= _STABLE * seconds or time.monotonic() > end:
                return True
            last = seconds
        return False

    def _cool_down(self) -> None:
        """Wait until the temperature is back to that before the first test; without a sensor, do not wait."""
        end = time.monotonic() + self._procedure.cooldown_s
        while self._cool_c is not None and time.monotonic() < end:
            now = self._sensors.temperature_c()
            if now is None or now <= self._cool_c + _COOL_C:
                return
            time.sleep(1.0)

    def _sustain(self, test: BenchTest) -> Sustained:
        """Repeat the test for ``sustained_s`` seconds."""
        start = time.monotonic()
        series: list[tuple[float, float]] = []
        while not series or time.monotonic() - start < self._procedure.sustained_s:
            tps = test.n_tokens / sum(self._run(test))
            series.append((round(time.monotonic() - start, 3), tps))
        seconds = series[-1][0]
        return Sustained(
            seconds=seconds,
            first_tps=statistics.median([tps for at, tps in series if at <= seconds / 10] or [series[0][1]]),
            sustained_tps=statistics.median(tps for at, tps in series if at >= seconds * 2 / 3),
            series=tuple(series),
        )

    def _take_sensor_notes(self) -> list[str]:
        taken, self._sensors.notes = self._sensors.notes, []
        return taken


def _time(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _warnings(samples: tuple[float, ...], busy_share: float | None, *, throttled: bool | None) -> list[str]:
    notes = []
    if (found := spread(samples)) > MAX_SPREAD:
        notes.append(f"samples have a standard deviation of {found:.0%} of their mean: run again on a quieter machine")
    if busy_share is not None and busy_share > _MAX_BUSY:
        notes.append(f"other programs used {busy_share:.0%} of the CPU during the test: close them and run again")
    if throttled:
        notes.append("the machine throttled during the test: improve cooling, or use --sustained")
    return notes
