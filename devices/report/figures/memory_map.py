"""Memory maps of models on devices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.stacks import MemoryRow, draw_memory, memory_scales, part_names, parts_legend
from sprat.devices.report.figures.figure import Draw, Figure, Table, scales_note, titled
from sprat.devices.report.names import known_profile
from sprat.devices.report.runs import Evidence, Misfit, Run
from sprat.text import human_bytes

__all__ = ["memory_figure"]

_QUESTION = "Memory map"


def memory_figure(evidence: Evidence) -> Figure:
    """One stacked bar per device; one panel per model and label."""
    panels = _panels(evidence)
    if not panels:
        return Figure(slug="memory", question=_QUESTION, finding="No run has a memory map.")
    rows = [row for group in panels.values() for row in group]
    names = part_names(rows)
    parts: list[tuple[str, Draw]] = [("", partial(parts_legend, names))]
    scales = memory_scales(list(panels.values()))
    parts += [
        (title, partial(draw_memory, group, names, scale=scale))
        for (title, group), scale in zip(panels.items(), scales, strict=True)
    ]
    return Figure(
        slug="memory",
        question=_QUESTION,
        finding=_finding(rows),
        note=f"Outline: memory of the device. Hatched: what does not fit.{scales_note(scales)}",
        draw=titled(parts),
        table=_table(panels, names),
    )


def _panels(evidence: Evidence) -> dict[str, list[MemoryRow]]:
    """The largest memory map per model, label and device; smallest device first."""
    rows = [*_ran(evidence.runs), *_refused(evidence.misfits)]
    models, kinds = list(dict.fromkeys(model for model, _ in rows)), list(Label)
    largest: dict[tuple[str, Label], dict[str, MemoryRow]] = defaultdict(dict)
    for model, row in sorted(rows, key=lambda pair: pair[1].used_bytes):
        largest[model, row.kind][row.name] = row
    order = sorted(largest, key=lambda key: (models.index(key[0]), kinds.index(key[1])))
    return {f"{model}, {kind}": sorted(largest[model, kind].values(), key=_by_size) for model, kind in order}


def _by_size(row: MemoryRow) -> tuple[int, int]:
    return row.total_bytes or 0, row.used_bytes


def _ran(runs: Iterable[Run]) -> Iterator[tuple[str, MemoryRow]]:
    for run in runs:
        if run.record.memory_map:
            yield run.model, MemoryRow(run.row, run.label, tuple(run.record.memory_map.items()), _total(run))


def _refused(misfits: Iterable[Misfit]) -> Iterator[tuple[str, MemoryRow]]:
    for misfit in misfits:
        parts = tuple((part.name, part.size_bytes) for part in misfit.plan.memory_map)
        plan, place = misfit.plan, f"of {misfit.plan.missing_from or 'memory'}"
        row = MemoryRow(misfit.row, Label.PREDICTED, parts, misfit.total_bytes, plan.missing_bytes, place)
        yield misfit.model, row


def _total(run: Run) -> int | None:
    record = run.record
    profile = known_profile(record.device)
    if profile:
        return int(profile.memory.total_bytes.value)
    return record.machine.memory_bytes if record.machine else None


def _finding(rows: Sequence[MemoryRow]) -> str:
    misfits = [row for row in rows if row.missing_bytes]
    if misfits:
        worst = max(misfits, key=lambda row: row.missing_bytes)
        lack = f"{worst.name} lacks {human_bytes(worst.missing_bytes)} {worst.missing_from}"
        return f"{len(rows) - len(misfits)} of {len(rows)} fit; {lack}."
    tightest = max(rows, key=lambda row: row.used_bytes / row.total_bytes if row.total_bytes else 0)
    if tightest.total_bytes is None:
        return f"The largest needs {human_bytes(max(row.used_bytes for row in rows))}."
    spare = human_bytes(tightest.total_bytes - tightest.used_bytes)
    return f"All fit; {tightest.name} has the least to spare, {spare}."


def _table(panels: Mapping[str, Sequence[MemoryRow]], names: Sequence[str]) -> Table:
    rows = tuple(
        (title, row.name, *(_size(dict(row.parts).get(name, 0)) for name in names), _size(row.total_bytes))
        for title, group in panels.items()
        for row in group
    )
    return Table(("model", "device", *names, "memory"), rows)


def _size(n_bytes: int | None) -> str:
    return "unknown" if n_bytes is None else human_bytes(n_bytes)
