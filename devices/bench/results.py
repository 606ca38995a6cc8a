"""The record of one measurement, and files of them: one JSON object per line, described in ``docs/bench-results.md``.

A record says what was run (model, test, settings), where (machine, device, label) and what came out (samples, latency,
memory, storage, heat, energy). ``None`` stands for what this machine cannot tell; nothing is estimated in its place.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from sprat.errors import ResultsError
from sprat.files import atomic_write

__all__ = [
    "SCHEMA",
    "Emulation",
    "Label",
    "Machine",
    "MeasuredModel",
    "Measurement",
    "Moment",
    "Percentiles",
    "Sustained",
    "Work",
    "check_place",
    "read_results",
    "write_results",
]

SCHEMA = 1
"""Version of the records; a file of another version is refused, not guessed at."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Setting = str | int | float | bool | None


class Label(enum.StrEnum):
    """How a figure came about. A record has one; figures of different labels never share a column."""

    MEASURED = "measured"  # by running, on the machine that the record names
    EMULATED = "emulated"  # by running under a device's limits, on another machine
    PREDICTED = "predicted"  # by the planner; nothing ran


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the program ran on."""

    processor: str  # "Intel(R) Xeon(R) Platinum 8481C"
    architecture: str  # "x86_64"
    n_cores: Annotated[int, msgspec.Meta(ge=1)]  # usable by the process
    memory_bytes: Count
    system: str  # "Linux 6.12.1"
    busy_share: float | None = None  # of all cores, by other programs while it ran; 0 to 1


class MeasuredModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ran. ``digest`` is ``sha256:`` of the file, or ``sampled:`` (see :mod:`sprat.devices.bench.digest`)."""

    name: str
    quant: str  # "Q4_0"
    size_bytes: Count  # of the weights
    n_params: Count
    digest: str | None = None  # None in predictions: there was no file
    random_weights: bool = False  # a shape: exact sizes, no knowledge


class Work(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was timed: a prompt of ``n_prompt`` tokens, or ``n_gen`` tokens one by one, behind ``depth`` others."""

    test: str  # llama-bench's name: "pp512", "tg128 @ d4096"
    n_prompt: Count
    n_gen: Count
    depth: Count

    @classmethod
    def prefill(cls, n_tokens: int, depth: int = 0) -> Work:
        """A prompt of ``n_tokens`` behind ``depth`` tokens in the cache."""
        return cls(test=_at(f"pp{n_tokens}", depth), n_prompt=n_tokens, n_gen=0, depth=depth)

    @classmethod
    def decode(cls, n_tokens: int, depth: int = 0) -> Work:
        """``n_tokens`` generated one by one behind ``depth`` tokens in the cache."""
        return cls(test=_at(f"tg{n_tokens}", depth), n_prompt=0, n_gen=n_tokens, depth=depth)

    @property
    def n_tokens(self) -> int:
        """Tokens that one sample processes."""
        return self.n_prompt + self.n_gen


class Percentiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of ``n`` times in milliseconds."""

    n: Annotated[int, msgspec.Meta(ge=1)]
    p50: float
    p99: float
    worst: float


class Moment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sensors at one moment."""

    seconds: float  # since the first repetition began
    temperature_c: float | None = None  # the hottest zone
    clock_ghz: float | None = None  # the fastest core
    power_w: float | None = None


class Sustained(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Speed over a long run of the same test, in tokens per second."""

    seconds: Positive
    first_tps: Positive  # median of the first tenth
    sustained_tps: Positive  # median of the last third
    series: tuple[tuple[float, float], ...]  # (seconds, tokens per second) of each sample


class Emulation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits that a run was held to, and what stayed the machine's own."""

    cgroup_version: int
    memory_bytes: Count
    n_cores: Annotated[int, msgspec.Meta(ge=1)]
    cpu_share: float  # of each core's time, 0 to 1
    read_bytes_per_second: Count | None  # None: no limit could be set
    storage: str  # "microSD"
    not_emulated: tuple[str, ...]  # one sentence each


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One test of one model: the line of a results file."""

    schema: int = SCHEMA
    label: Label
    device: str | None  # a profile's name; None only for what was measured on a machine without one
    started: str  # ISO 8601, UTC
    machine: Machine | None  # None in predictions
    versions: dict[str, str]  # "sprat", "python", "numpy" and the backend's library
    model: MeasuredModel
    backend: str
    threads: Annotated[int, msgspec.Meta(ge=1)]
    settings: dict[str, Setting]  # everything else that changes the work or its speed
    work: Work

    samples_tps: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)]  # tokens per second, in order
    error_share: float | None = None  # of a prediction: 0.15 is plus or minus 15 %
    load_ms: float | None = None  # from opening the file to the first token possible
    ttft_ms: Percentiles | None = None  # of prompts: until the first token is chosen
    inter_token_ms: Percentiles | None = None  # of generated tokens

    peak_rss_bytes: Count | None = None
    page_cache_bytes: Count | None = None  # of the model's file, after the test
    storage_read_bytes: Count | None = None  # while the repetitions ran
    memory_map: dict[str, Count] = msgspec.field(default_factory=dict)  # part -> bytes, as in a plan

    before: Moment | None = None
    after: Moment | None = None
    sensors: tuple[Moment, ...] = ()
    throttled: bool | None = None
    joules_per_token: float | None = None

    sustained: Sustained | None = None
    emulation: Emulation | None = None
    notes: tuple[str, ...] = ()  # what a reader must know before believing the figures

    def __post_init__(self) -> None:
        if self.label is not Label.MEASURED and not self.device:
            raise ValueError(f"an {self.label} figure names its device")
        if (self.label is Label.EMULATED) != (self.emulation is not None):
            raise ValueError("the limits of an emulation stand with emulated figures, and with no others")

    @property
    def mean_tps(self) -> float:
        """Mean of the samples, in tokens per second."""
        return sum(self.samples_tps) / len(self.samples_tps)

    @property
    def label_text(self) -> str:
        """The label as every table and axis prints it: ``measured``, ``emulated on rpi5-8gb``."""
        on = {Label.MEASURED: "on", Label.EMULATED: "on", Label.PREDICTED: "for"}[self.label]
        return f"{self.label} {on} {self.device}" if self.device else str(self.label)


def check_place(path: str | os.PathLike[str]) -> None:
    """Make sure, before anything is measured, that a results file can be made at ``path``.

    Raises:
        ResultsError: its folder does not exist or may not be written, or it is a folder itself.
    """
    path = Path(path)
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ResultsError(f"{path}: cannot be written; choose a file in a folder that exists and is yours")


def write_results(path: str | os.PathLike[str], records: Iterable[Measurement]) -> None:
    """Write ``records`` to ``path``, one line each; the file appears when it is whole.

    Raises:
        ResultsError: it cannot be written.
    """
    path = Path(path)
    try:
        atomic_write(path, b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written ({error.strerror}); choose another folder with -o") from error


def read_results(path: str | os.PathLike[str]) -> list[Measurement]:
    """All records of a results file.

    Raises:
        ResultsError: it cannot be read, is empty, or a line is damaged or of another version.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); make one with `sprat bench -o`") from error
    records = [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not records:
        raise ResultsError(f"{path}: holds no results; make some with `sprat bench -o {path}`")
    return records


class _Version(msgspec.Struct):
    """As much of a record as every version has."""

    schema: int


def _record(line: bytes, where: str) -> Measurement:
    try:
        version = msgspec.json.decode(line, type=_Version).schema
        if version != SCHEMA:
            raise ResultsError(
                f"{where}: results of version {version}, expected {SCHEMA}; "
                "run `sprat bench` of this sprat again, or read them with the sprat that wrote them"
            )
        return msgspec.json.decode(line, type=Measurement)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ResultsError(
            f"{where}: no result of sprat bench ({error}); make it again with `sprat bench -o`"
        ) from error


def _at(test: str, depth: int) -> str:
    return f"{test} @ d{depth}" if depth else test
