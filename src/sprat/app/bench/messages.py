"""The protocol between parent and child of a benchmark: one job as a line of JSON in, one message per line out."""

from __future__ import annotations

import msgspec

from sprat.app.bench.trace import TraceReport
from sprat.devices.bench.results import BenchTest, Emulation, Measurement, Setting
from sprat.runtime.backends.providers.settings import ProviderSettings

__all__ = ["Failure", "Job", "Message", "Result", "Traced", "Working"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The tests that the child process runs."""

    path: str  # of the model file
    digest: str  # of the file; computed by the parent, because reading it under limits is slow and fills the page cache
    tests: tuple[BenchTest, ...]  # ordered by depth, so that a long context is built once
    backend: str
    provider: ProviderSettings | None = None
    threads: int
    batch: int | None  # prompt tokens per forward pass; None for the engine's choice
    repetitions: int
    sustained_s: float
    trace: bool
    device: str | None
    emulation: Emulation | None
    random_weights: bool
    settings: dict[str, Setting]


class Working(msgspec.Struct, frozen=True, tag="progress"):
    """Progress: the test that runs now."""

    done: int
    total: int
    what: str


class Result(msgspec.Struct, frozen=True, tag="result"):
    """The measurement of one test."""

    measurement: Measurement


class Traced(msgspec.Struct, frozen=True, tag="traced"):
    """The trace of one test."""

    report: TraceReport


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """A :class:`SpratError`, by class name and message."""

    kind: str
    text: str


Message = Working | Result | Traced | Failure
