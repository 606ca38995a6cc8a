"""Measuring anything that can take a prompt and go on from it: warm-up, repetitions, sensors, and one record.

It imports no runtime: what is measured fits :class:`Subject`, and the command line hands it an engine's backend.
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
from sprat.devices.bench.results import Emulation, Label, MeasuredModel, Measurement, Setting, Sustained, Work
from sprat.devices.bench.sensor_log import SensorLog
from sprat.devices.bench.sensors import Sensors
from sprat.devices.bench.statistics import percentiles, spread

__all__ = ["MOST_SPREAD", "Bench", "Procedure", "Setup", "Subject"]

MOST_SPREAD = 0.10  # standard deviation over mean; more than this is said
_MOST_BUSY = 0.10  # share of all cores that others may use unsaid
_STABLE = 0.05  # two warm-up runs that differ by less than this end the warm-up
_WARM_UP_RUNS = 5
_WARM_UP_SECONDS = 60.0
_WARM_UP_TOKENS = 16  # of generated ones
_COOL_C = 2.0  # above the temperature before the first test


class Subject(Protocol):
    """What is measured. It holds a sequence of tokens and may choose them freely."""

    def rewind(self, depth: int) -> None:
        """Hold exactly ``depth`` tokens: forget those after, or process what is missing."""

    def prefill(self, n_tokens: int) -> None:
        """Process ``n_tokens`` more and choose the next token."""

    def decode(self) -> None:
        """Process one token more and choose the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """How a test is run."""

    repetitions: int = 5
    cooldown_s: float = 60.0  # at most, between two tests; only where a sensor says that it is hot
    sustained_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all records of one run have in common; the fields are those of the record."""

    model: MeasuredModel
    backend: str
    threads: int
    path: Path | None = None  # of the model's file
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
        subject: what is measured.
        setup: what it is, and where.
        procedure: how to measure.
        sensors: of this machine; tests pass their own.
    """

    def __init__(
        self, subject: Subject, setup: Setup, procedure: Procedure = Procedure(), sensors: Sensors | None = None
    ) -> None:
        self._subject = subject
        self._setup = setup
        self._procedure = procedure
        self._sensors = sensors or Sensors()
        self._cool = self._sensors.temperature_c()

    def measure(self, work: Work) -> Measurement:
        """Run one test: cool down, warm up, repeat, and keep on where that was asked for."""
        self._cool_down()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        notes = [] if self._warm_up(work) else [f"still not stable after {_WARM_UP_RUNS} runs of warm-up"]
        busy, read_before = BusyMeter(), storage_read_bytes()
        with SensorLog(self._sensors) as log:
            steps = [self._run(work) for _ in range(self._procedure.repetitions)]
        busy_share, read_after = busy.share(), storage_read_bytes()
        samples = tuple(work.n_tokens / sum(seconds) for seconds in steps)
        times = percentiles([1e3 * second for seconds in steps for second in seconds])
        joules = log.joules()
        sustained = self._sustain(work) if self._procedure.sustained_s else None
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
            work=work,
            samples_tps=samples,
            load_ms=setup.load_ms,
            ttft_ms=times if work.n_prompt else None,
            inter_token_ms=times if work.n_gen else None,
            peak_rss_bytes=peak_rss_bytes(),
            page_cache_bytes=cached_bytes(setup.path) if setup.path else None,
            storage_read_bytes=None if read_before is None or read_after is None else read_after - read_before,
            memory_map=setup.memory_map,
            before=log.before,
            after=log.after,
            sensors=log.moments(),
            throttled=log.throttled(),
            joules_per_token=None if joules is None else joules / (work.n_tokens * len(steps)),
            sustained=sustained,
            emulation=setup.emulation,
            notes=tuple(notes),
        )

    def _run(self, work: Work) -> list[float]:
        """Seconds of every step of one repetition: one of a prompt, one per generated token."""
        subject = self._subject
        subject.rewind(work.depth)
        seconds = [_time(lambda: subject.prefill(work.n_prompt))] if work.n_prompt else []
        return seconds + [_time(subject.decode) for _ in range(work.n_gen)]

    def _warm_up(self, work: Work) -> bool:
        """Run until two runs in a row agree; whether they did."""
        short = Work.decode(min(work.n_gen, _WARM_UP_TOKENS), work.depth) if work.n_gen else work
        self._subject.rewind(work.depth)  # a long context is built once, and is no part of the warm-up
        end = time.monotonic() + _WARM_UP_SECONDS
        last = math.inf
        for _ in range(_WARM_UP_RUNS):
            seconds = sum(self._run(short))
            if abs(seconds - last) <= _STABLE * seconds or time.monotonic() > end:
                return True
            last = seconds
        return False

    def _cool_down(self) -> None:
        """Wait until the machine is as cool as before the first test; not at all where no sensor says so."""
        end = time.monotonic() + self._procedure.cooldown_s
        while self._cool is not None and time.monotonic() < end:
            now = self._sensors.temperature_c()
            if now is None or now <= self._cool + _COOL_C:
                return
            time.sleep(1.0)

    def _sustain(self, work: Work) -> Sustained:
        """Run on and on."""
        start = time.monotonic()
        series: list[tuple[float, float]] = []
        while not series or time.monotonic() - start < self._procedure.sustained_s:
            tps = work.n_tokens / sum(self._run(work))
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
    if (found := spread(samples)) > MOST_SPREAD:
        notes.append(f"the samples spread by {found:.0%} of their mean: run again on a quieter machine")
    if busy_share is not None and busy_share > _MOST_BUSY:
        notes.append(f"other programs used {busy_share:.0%} of the cores meanwhile: close them and run again")
    if throttled:
        notes.append("the machine throttled itself meanwhile: cool it better, or trust only --sustained")
    return notes
