"""What a report is about: records and refused plans, under the names that charts show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sprat.devices.bench.results import Label, Measurement
from sprat.devices.plan.plan import PlanSummary
from sprat.devices.report.charts.stacks import gibibytes
from sprat.devices.report.names import ModelName, ModelNames, device_titles, place_of, write_tokens

__all__ = ["Evidence", "Misfit", "Run", "by_model", "gather", "headline", "work_words"]


@dataclass(frozen=True, slots=True)
class Run:
    """A record under the names of its model, its device, and its line or row in a chart."""

    record: Measurement
    model: str
    device: str
    row: str  # the device, and the quantization where the report holds several
    series: str  # the row, and what tells this run from others in it

    @property
    def label(self) -> Label:
        """Measured, emulated or predicted."""
        return self.record.label

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.record.mean_tps

    @property
    def spread(self) -> tuple[float, float]:
        """The slowest and the fastest sample, or the interval of a prediction, in tokens per second."""
        error = self.record.error_share
        if error is None:
            return min(self.record.samples_tps), max(self.record.samples_tps)
        return self.speed * max(1 - error, 0), self.speed * (1 + error)


@dataclass(frozen=True, slots=True)
class Misfit:
    """A model that does not fit a device: it has no speed, only a lack of bytes."""

    model: str
    device: str
    row: str
    plan: PlanSummary

    @property
    def total_bytes(self) -> int:
        """All memory of the device."""
        return self.plan.usable_bytes + sum(part.size_bytes for part in self.plan.memory_map if part.name == "reserve")


_Thing = TypeVar("_Thing", Run, Misfit)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a report shows."""

    runs: tuple[Run, ...]
    misfits: tuple[Misfit, ...]


def gather(records: Sequence[Measurement], refused: Sequence[PlanSummary] = ()) -> Evidence:
    """Name everything; of the same work done twice in the same way on the same device, the later record counts."""
    names = ModelNames(records, refused)
    titles = device_titles({place_of(record) for record in records} | {plan.device for plan in refused})
    families: dict[tuple[ModelName, str, Label], dict[object, Measurement]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: record.started):
        way = (record.work, *sorted(_circumstances(record).items()))
        families[names.of_record(record), titles[place_of(record)], record.label][way] = record
    runs = []
    for (model, device, _), family in families.items():
        row, ways = names.row(device, model), [_circumstances(record) for record in family.values()]
        for record in family.values():
            series = ", ".join([row, *_differing(_circumstances(record), ways)])
            runs.append(Run(record, names.title(model), device, row, series))
    return Evidence(tuple(runs), tuple(_misfit(plan, names, titles[plan.device]) for plan in refused))


def by_model(things: Iterable[_Thing]) -> dict[str, list[_Thing]]:
    """Runs, or misfits, by their model's name, in order of appearance."""
    groups: dict[str, list[_Thing]] = defaultdict(list)
    for thing in things:
        groups[thing.model].append(thing)
    return dict(groups)


def headline(runs: Sequence[Run]) -> list[Run]:
    """The runs that a sentence is about: of the largest model, those of the most trustworthy label that it has."""
    size = max(run.record.model.size_bytes for run in runs)
    model = next(run.model for run in runs if run.record.model.size_bytes == size)
    group = [run for run in runs if run.model == model]
    best = min((run.label for run in group), key=list(Label).index)
    return [run for run in group if run.label is best]


def work_words(run: Run) -> str:
    """The test in words: ``read 512``, ``write at 4k``."""
    work = run.record.work
    verb = "write" if work.n_gen else f"read {write_tokens(work.n_prompt)}"
    return f"{verb} at {write_tokens(work.depth)}" if work.depth else verb


def _misfit(plan: PlanSummary, names: ModelNames, device: str) -> Misfit:
    model = names.of_plan(plan)
    return Misfit(names.title(model), device, names.row(device, model), plan)


def _differing(mine: Mapping[str, str], others: Iterable[Mapping[str, str]]) -> list[str]:
    """What tells this way of running from the others."""
    return [text for name, text in mine.items() if any(other.get(name) != text for other in others)]


def _circumstances(record: Measurement) -> dict[str, str]:
    """Everything that may differ between two runs of the same work on devices of the same name."""
    ways = {"backend": record.backend, "threads": f"{record.threads} threads"}
    if record.machine:
        ways |= {"cores": f"{record.machine.n_cores} cores", "memory": gibibytes(record.machine.memory_bytes)}
    return ways | {name: f"{name} {value}" for name, value in record.settings.items()}
