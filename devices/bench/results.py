"""The record of one benchmark test, and results files: one JSON object per line (``docs/bench-results.md``).

A record has the input (model, test, settings), the machine (machine, device, label) and the results (samples, latency,
memory, storage, temperature, energy). ``None`` means that the machine does not report a value; nothing is estimated.
"""

from __future__ import annotations

import enum
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from sprat.errors import ResultsError
from sprat.files import DocumentError, atomic_write, parse_json, read_input

__all__ = [
    "SCHEMA",
    "BenchTest",
    "Emulation",
    "Label",
    "Machine",
    "MeasuredModel",
    "Measurement",
    "Moment",
    "Percentiles",
    "Sustained",
    "check_place",
    "gather_notes",
    "read_results",
    "write_results",
]

SCHEMA = 1
"""Version of the records; a file of another version is an error."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
_PERCENTAGE = re.compile(r"\d+(?=%)")
Setting = str | int | float | bool | None


class Label(enum.StrEnum):
    """Where a record's values come from. Values with different labels never share a column."""

    MEASURED = "measured"  # on the machine that the record names
    EMULATED = "emulated"  # under a device's limits on another machine
    PREDICTED = "predicted"  # by the planner; nothing ran


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine that the test ran on."""

    processor: str  # "Intel(R) Xeon(R) Platinum 8481C"
    architecture: str  # "x86_64"
    n_cores: Annotated[int, msgspec.Meta(ge=1)]  # usable by the process
    memory_bytes: Count
    system: str  # "Linux 6.12.1"
    busy_share: float | None = None  # CPU share of other programs during the test, 0 to 1


class MeasuredModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that ran. ``digest``: see :mod:`sprat.devices.bench.digest`."""

    name: str
    quant: str  # "Q4_0"
    size_bytes: Count  # of the weights
    n_params: Count
    digest: str | None = None  # None in predictions, which have no file
    random_weights: bool = False  # a preset with random weights


class BenchTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A timed test: prefill of ``n_prompt`` tokens, or decode of ``n_gen`` tokens, at ``depth``."""

    test: str  # llama-bench's name: "pp512", "tg128 @ d4096"
    n_prompt: Count
    n_gen: Count
    depth: Count

    @classmethod
    def prefill(cls, n_tokens: int, depth: int = 0) -> BenchTest:
        """Prefill of ``n_tokens`` with ``depth`` tokens in the KV cache."""
        return cls(test=_at(f"pp{n_tokens}", depth), n_prompt=n_tokens, n_gen=0, depth=depth)

    @classmethod
    def decode(cls, n_tokens: int, depth: int = 0) -> BenchTest:
        """Decode of ``n_tokens`` with ``depth`` tokens in the KV cache."""
        return cls(test=_at(f"tg{n_tokens}", depth), n_prompt=0, n_gen=n_tokens, depth=depth)

    @property
    def n_tokens(self) -> int:
        """Tokens per sample."""
        return self.n_prompt + self.n_gen


class Percentiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Percentiles of ``n`` times, in milliseconds."""

    n: Annotated[int, msgspec.Meta(ge=1)]
    p50: float
    p99: float
    worst: float


class Moment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sensor readings at one time."""

    seconds: float  # since the first repetition began
    temperature_c: float | None = None  # hottest zone
    clock_ghz: float | None = None  # fastest core
    power_w: float | None = None


class Sustained(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Speed over a long run of the same test, in tokens per second."""

    seconds: Positive
    first_tps: Positive  # median of the first tenth
    sustained_tps: Positive  # median of the last third
    series: tuple[tuple[float, float], ...]  # (seconds, tokens per second) of each sample


class Emulation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of an emulated run, and what was not emulated."""

    cgroup_version: int
    memory_bytes: Count
    n_cores: Annotated[int, msgspec.Meta(ge=1)]
    cpu_share: float  # of each core's time, 0 to 1
    read_bytes_per_second: Count | None  # None: no limit was possible
    storage: str  # "microSD"
    not_emulated: tuple[str, ...]  # one sentence each


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One test of one model: the line of a results file."""

    schema: int = SCHEMA
    label: Label
    device: str | None  # name of a profile; None only if measured on a machine without one
    started: str  # ISO 8601, UTC
    machine: Machine | None  # None in predictions
    versions: dict[str, str]  # "sprat", "python", "numpy" and the backend's library
    model: MeasuredModel
    backend: str
    threads: Annotated[int, msgspec.Meta(ge=1)]
    settings: dict[str, Setting]  # other settings that change the work or its speed
    work: BenchTest

    samples_tps: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)]  # tokens per second, in order
    error_share: float | None = None  # of a prediction: 0.15 is ± 15 %
    load_ms: float | None = None  # from opening the file until a prompt can begin
    ttft_ms: Percentiles | None = None  # of prompts: time to first token
    inter_token_ms: Percentiles | None = None  # of generated tokens

    peak_rss_bytes: Count | None = None
    page_cache_bytes: Count | None = None  # of the model file, after the test
    storage_read_bytes: Count | None = None  # during the repetitions
    memory_map: dict[str, Count] = msgspec.field(default_factory=dict)  # part -> bytes, as in a plan

    before: Moment | None = None
    after: Moment | None = None
    sensors: tuple[Moment, ...] = ()
    throttled: bool | None = None
    joules_per_token: float | None = None

    sustained: Sustained | None = None
    emulation: Emulation | None = None
    notes: tuple[str, ...] = ()  # reservations: noise, throttling, lost sensors

    def __post_init__(self) -> None:
        if self.label is not Label.MEASURED and not self.device:
            raise ValueError(f"label is {self.label}: expected a device")
        if (self.label is Label.EMULATED) != (self.emulation is not None):
            raise ValueError(f"label is {self.label}: emulation limits belong to emulated records, and only to those")

    @property
    def mean_tps(self) -> float:
        """Mean of the samples, in tokens per second."""
        return sum(self.samples_tps) / len(self.samples_tps)

    @property
    def label_text(self) -> str:
        """The label with its device, as tables print it: ``measured``, ``emulated on rpi5-8gb``."""
        on = {Label.MEASURED: "on", Label.EMULATED: "on", Label.PREDICTED: "for"}[self.label]
        return f"{self.label} {on} {self.device}" if self.device else str(self.label)


def check_place(path: str | os.PathLike[str]) -> None:
    """Check, before anything is measured, that a results file can be written to ``path``.

    Raises:
        ResultsError: its folder does not exist or cannot be written, or ``path`` is a folder or another kind of file.
    """
    path = Path(path)
    _existing(path)
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ResultsError(f"{path}: cannot be written; choose a file in an existing folder that you can write to")


def write_results(path: str | os.PathLike[str], records: Iterable[Measurement]) -> None:
    """Append ``records`` to ``path``, one line each; readers see all of them or none.

    Raises:
        ResultsError: it cannot be written, or holds something else than results.
    """
    path = Path(path)
    before = _existing(path)
    try:
        atomic_write(path, before + b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written ({error.strerror}); choose another folder with -o") from error


def _existing(path: Path) -> bytes:
    """The results that the file has already, up to a newline."""
    if not os.path.lexists(path) or path.is_dir():
        return b""
    try:
        data = read_input(path)
        if data.strip():
            read_results(path)
    except (OSError, ResultsError) as error:
        raise ResultsError(
            f"{path}: exists, and results cannot be appended to it ({error}); choose another file"
        ) from error
    return data if data.endswith(b"\n") or not data else data + b"\n"


def read_results(path: str | os.PathLike[str]) -> list[Measurement]:
    """All records of a results file.

    Raises:
        ResultsError: the file cannot be read or is empty, or a line is invalid or of another version.
    """
    try:
        lines = read_input(Path(path)).splitlines()
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); write one with `sprat bench -o`") from error
    records = [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not records:
        raise ResultsError(f"{path}: has no results; write some with `sprat bench -o {path}`")
    return records


def gather_notes(records: Iterable[Measurement]) -> dict[str, list[str]]:
    """Every note, with the tests that have it; notes that differ only in one percentage are merged into its range."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for record in records:
        for note in record.notes:
            groups[_PERCENTAGE.sub("#", note, count=1)].append((note, record.work.test))
    return {_merged([note for note, _ in group]): [test for _, test in group] for group in groups.values()}


def _merged(notes: list[str]) -> str:
    percentages = [int(found[0]) for note in notes if (found := _PERCENTAGE.search(note))]
    if not percentages or min(percentages) == max(percentages):
        return notes[0]
    return _PERCENTAGE.sub(f"{min(percentages)} to {max(percentages)}", notes[0], count=1)


class _Version(msgspec.Struct):
    """The part of a record that all versions share."""

    schema: int


def _record(line: bytes, where: str) -> Measurement:
    try:
        version = parse_json(line, _Version).schema
        if version != SCHEMA:
            raise ResultsError(
                f"{where}: results have version {version}, expected {SCHEMA}; "
                "run `sprat bench` again, or read them with the version of sprat that wrote them"
            )
        record: Measurement = parse_json(line, Measurement)
    except DocumentError as error:
        raise ResultsError(
            f"{where}: not a result of sprat bench ({error}); write it again with `sprat bench -o`"
        ) from error
    return record


def _at(test: str, depth: int) -> str:
    return f"{test} @ d{depth}" if depth else test
