"""Records, and plans of models that do not fit, with the names that charts show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sprat.devices.bench.results import Label, Measurement
from sprat.devices.plan.plan import PlanSummary
from sprat.devices.report.names import ModelName, ModelNames, device_titles, place_of, write_tokens
from sprat.text import human_bytes

__all__ = ["Evidence", "Misfit", "Run", "by_model", "gather", "headline", "shortage", "test_name"]


@dataclass(frozen=True, slots=True)
class Run:
    """A record with the names of its model, device, row and series."""

    record: Measurement
    model: str
    device: str
    row: str  # device, and the quantization if the report has several
    series: str  # row, and the settings that differ from other runs in it

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
        """Slowest and fastest sample, or the error interval of a prediction, in tokens per second."""
        error = self.record.error_share
        if error is None:
            return min(self.record.samples_tps), max(self.record.samples_tps)
        return self.speed * max(1 - error, 0), self.speed * (1 + error)


@dataclass(frozen=True, slots=True)
class Misfit:
    """A model that does not fit a device."""

    model: str
    device: str
    row: str
    plan: PlanSummary

    @property
    def total_bytes(self) -> int:
        """Memory of the device."""
        return self.plan.usable_bytes + sum(part.size_bytes for part in self.plan.memory_map if part.name == "reserve")


_Named = TypeVar("_Named", Run, Misfit)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Contents of a report."""

    runs: tuple[Run, ...]
    misfits: tuple[Misfit, ...]


def gather(records: Sequence[Measurement], refused: Sequence[PlanSummary] = ()) -> Evidence:
    """Name records and plans; of records with the same test, device and settings only the latest is kept."""
    names = ModelNames(records, refused)
    titles = device_titles({place_of(record) for record in records} | {plan.device for plan in refused})
    families: dict[tuple[ModelName, str, Label], dict[object, Measurement]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: record.started):
        key = (record.work, *sorted(_settings(record).items()))
        families[names.of_record(record), titles[place_of(record)], record.label][key] = record
    runs = []
    for (model, device, _), family in families.items():
        row, settings = names.row(device, model), [_settings(record) for record in family.values()]
        for record in family.values():
            series = ", ".join([row, *_differing(_settings(record), settings)])
            runs.append(Run(record, names.title(model), device, row, series))
    misfits = [_misfit(plan, names, titles[plan.device]) for plan in refused]
    latest = {(misfit.model, misfit.row): misfit for misfit in misfits}  # the same plan may be in several files
    return Evidence(tuple(runs), tuple(latest.values()))


def by_model(items: Iterable[_Named]) -> dict[str, list[_Named]]:
    """Runs or misfits grouped by model, in order of appearance."""
    groups: dict[str, list[_Named]] = defaultdict(list)
    for item in items:
        groups[item.model].append(item)
    return dict(groups)


def headline(runs: Sequence[Run]) -> list[Run]:
    """Runs for the finding: those of the largest model with its most reliable label."""
    size = max(run.record.model.size_bytes for run in runs)
    model = next(run.model for run in runs if run.record.model.size_bytes == size)
    group = [run for run in runs if run.model == model]
    best = min((run.label for run in group), key=list(Label).index)
    return [run for run in group if run.label is best]


def shortage(plan: PlanSummary) -> str:
    """Missing bytes of a plan that does not fit: ``1.2 GiB of memory missing``."""
    return f"{human_bytes(plan.missing_bytes)} of {plan.missing_from or 'memory'} missing"


def test_name(run: Run) -> str:
    """Name of the test in a chart: ``prefill 512``, ``decode @ 4k``."""
    test = run.record.work
    name = "decode" if test.n_gen else f"prefill {write_tokens(test.n_prompt)}"
    return f"{name} @ {write_tokens(test.depth)}" if test.depth else name


def _misfit(plan: PlanSummary, names: ModelNames, device: str) -> Misfit:
    model = names.of_plan(plan)
    return Misfit(names.title(model), device, names.row(device, model), plan)


def _counted(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


def _differing(settings: Mapping[str, str], others: Iterable[Mapping[str, str]]) -> list[str]:
    """Settings of this run that differ from those of other runs."""
    return [text for name, text in settings.items() if any(other.get(name) != text for other in others)]


def _settings(record: Measurement) -> dict[str, str]:
    """Properties that may differ between two runs of the same test on devices of the same name."""
    settings = {"backend": record.backend, "threads": _counted(record.threads, "thread")}
    if record.machine:
        settings |= {
            "cores": _counted(record.machine.n_cores, "core"),
            "memory": human_bytes(record.machine.memory_bytes),
        }
    return settings | {name: f"{name} {value}" for name, value in record.settings.items()}
