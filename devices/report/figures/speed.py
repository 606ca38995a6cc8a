"""Decode speed by device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.bars import Bar, BarRow, Mark, bar_scales, draw_bars
from sprat.devices.report.charts.marks import legend
from sprat.devices.report.figures.figure import Draw, Figure, Table, scales_note, titled
from sprat.devices.report.inputs import EXPERTS, STREAMED
from sprat.devices.report.runs import Evidence, Misfit, Run, by_model, headline, shortage
from sprat.text import format_number

__all__ = ["speed_figure"]

# Silent reading of English: 238 words per minute (M. Brysbaert 2019, Journal of Memory and Language 109), each taken as
# 4/3 tokens.
_READING = Mark(238 / 60 * 4 / 3, "reading speed")
_MAX_MISFITS = 3  # named in the finding
_QUESTION = "Decode speed by device, in tokens per second"


def speed_figure(evidence: Evidence) -> Figure:
    """Decode speed at the smallest depth, one bar per device and label."""
    models = {model: _smallest_depth(group) for model, group in by_model(_decoding(evidence.runs)).items()}
    refused = by_model(evidence.misfits)
    shown = [run for group in models.values() for run in group]
    if not shown:
        return Figure(slug="speed", question=_QUESTION, finding=_nothing(evidence.misfits))
    panels: list[tuple[str, Draw]] = [("", partial(legend, {run.label for run in shown}))]
    rows = {
        model: [*_rows(models.get(model, ())), *_refused_rows(refused.get(model, ()))]
        for model in dict.fromkeys([*models, *refused])
    }
    scales = bar_scales(list(rows.values()))
    panels += [
        (model, partial(draw_bars, group, scale=scale, mark=_READING))
        for (model, group), scale in zip(rows.items(), scales, strict=True)
    ]
    return Figure(
        slug="speed",
        question=_QUESTION,
        finding=_finding(shown, evidence.misfits),
        note=(
            f"Longer is better.{scales_note(scales)} Whiskers: slowest to fastest sample, or the error interval of a "
            "prediction. Dashed: 238 words of English per minute (Brysbaert 2019) at 4/3 tokens per word."
        ),
        draw=titled(panels),
        table=_table(shown),
    )


def _nothing(misfits: Sequence[Misfit]) -> str:
    if not misfits:
        return "No run decoded: `sprat bench -n 128` adds one."
    pairs = "; ".join(f"{misfit.model} on {misfit.device}" for misfit in misfits[:_MAX_MISFITS])
    return f"No speed, since nothing fits: {pairs}."


def _decoding(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.record.work.n_gen]


def _smallest_depth(runs: Sequence[Run]) -> list[Run]:
    """The run at the smallest depth of each series and label; fastest first."""
    best: dict[tuple[str, Label], Run] = {}
    for run in sorted(runs, key=lambda run: (run.record.work.depth, -run.record.work.n_gen)):
        best.setdefault((run.series, run.label), run)
    return sorted(best.values(), key=lambda run: -run.speed)


def _rows(runs: Sequence[Run]) -> list[BarRow]:
    """One row per series, ordered by its fastest bar; in a row, measured comes before predicted."""
    rows: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        rows[run.series].append(run)
    order = list(Label)
    return [
        BarRow(name, tuple(_bar(run) for run in sorted(group, key=lambda run: order.index(run.label))))
        for name, group in rows.items()
    ]


def _refused_rows(misfits: Iterable[Misfit]) -> list[BarRow]:
    """Devices that are too small; the smallest lack first."""
    return [
        BarRow(misfit.row, (), remark=f"does not fit: {shortage(misfit.plan)}")
        for misfit in sorted(misfits, key=lambda misfit: misfit.plan.missing_bytes)
    ]


def _bar(run: Run) -> Bar:
    low, high = run.spread
    words = f"{run.series}: {format_number(run.speed)} tokens per second, {run.label} ({run.record.work.test})"
    remark = "experts streamed" if run.record.settings.get(EXPERTS) == STREAMED else ""
    return Bar(run.label, run.speed, low, high, tip=words, remark=remark)


def _finding(runs: Sequence[Run], misfits: Sequence[Misfit]) -> str:
    """The highest speed of the largest model, and how many devices reach reading speed."""
    best = max(headline(runs), key=lambda run: run.speed)
    group = [run for run in runs if run.model == best.model]
    speed = f"{best.model} decodes {format_number(best.speed)} tokens per second on {best.row}, {best.label}"
    devices = {run.device for run in group} | {misfit.device for misfit in misfits if misfit.model == best.model}
    if len(devices) == 1:
        return f"{speed}."
    fast = {run.device for run in group if run.speed >= _READING.value}
    return f"{speed}; {len(fast)} of {len(devices)} devices reach reading speed."


def _table(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        low, high = run.spread
        interval = f"{format_number(low)} to {format_number(high)}"
        rows.append((run.model, run.series, run.label.value, run.record.work.test, format_number(run.speed), interval))
    return Table(("model", "device", "label", "test", "tokens/s", "range"), tuple(rows))
