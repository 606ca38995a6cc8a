"""What the two sides of a benchmark tell each other: a job goes in as one line of JSON, messages come back as lines."""

from __future__ import annotations

import msgspec

from sprat.app.bench.trace import TraceReport
from sprat.devices.bench.results import Emulation, Measurement, Setting, Work

__all__ = ["Failure", "Job", "Message", "Result", "Traced", "Working"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is to measure."""

    path: str  # a GGUF file
    digest: str  # of it; made outside, because reading a file under limits takes long and fills the page cache
    works: tuple[Work, ...]  # by depth, so that a long context is built once
    backend: str
    threads: int
    batch: int | None  # tokens of a prompt that are processed at once; None for the engine's own choice
    repetitions: int
    sustained_s: float
    trace: bool
    device: str | None
    emulation: Emulation | None
    random_weights: bool
    settings: dict[str, Setting]


class Working(msgspec.Struct, frozen=True, tag="progress"):
    """What the child does now."""

    done: int
    total: int
    what: str


class Result(msgspec.Struct, frozen=True, tag="result"):
    """One test is done."""

    measurement: Measurement


class Traced(msgspec.Struct, frozen=True, tag="traced"):
    """One test was traced."""

    report: TraceReport


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """An error of sprat's own tree, by class name."""

    kind: str
    text: str


Message = Working | Result | Traced | Failure
