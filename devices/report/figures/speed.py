"""Devices against tokens per second: which device is fast enough."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.bars import Bar, BarRow, Mark, draw_bars
from sprat.devices.report.charts.marks import legend
from sprat.devices.report.charts.stacks import gibibytes
from sprat.devices.report.figures.figure import Draw, Figure, Table, titled
from sprat.devices.report.inputs import EXPERTS, STREAMED
from sprat.devices.report.runs import Evidence, Misfit, Run, by_model, headline
from sprat.text import format_number

__all__ = ["speed_figure"]

# Silent reading of English: 238 words per minute (M. Brysbaert 2019, Journal of Memory and Language 109), each taken as
# 4/3 tokens.
_READING = Mark(238 / 60 * 4 / 3, "as fast as one reads")
_MAX_MISFITS = 3  # to be named in a sentence
_QUESTION = "Speed of writing, by device, in tokens per second"


def speed_figure(evidence: Evidence) -> Figure:
    """Decode speed at the shortest context that was tried, one bar per device and label."""
    models = {model: _shortest_context(group) for model, group in by_model(_decoding(evidence.runs)).items()}
    refused = by_model(evidence.misfits)
    shown = [run for group in models.values() for run in group]
    if not shown:
        return Figure(slug="speed", question=_QUESTION, finding=_nothing(evidence.misfits))
    panels: list[tuple[str, Draw]] = [("", partial(legend, {run.label for run in shown}))]
    for model in dict.fromkeys([*models, *refused]):
        rows = [*_rows(models.get(model, ())), *_refused_rows(refused.get(model, ()))]
        panels.append((model, partial(draw_bars, rows, mark=_READING)))
    return Figure(
        slug="speed",
        question=_QUESTION,
        finding=_finding(shown, evidence.misfits),
        note=(
            "Longer is better. Whiskers: slowest to fastest sample, or the error bar of a prediction. Dashed line: "
            "238 words of English per minute (Brysbaert 2019) at 4/3 tokens a word."
        ),
        draw=titled(panels),
        table=_table(shown),
    )


def _nothing(misfits: Sequence[Misfit]) -> str:
    if not misfits:
        return "No run generated tokens: `sprat bench -n 128` adds one."
    pairs = "; ".join(f"{misfit.model} on {misfit.device}" for misfit in misfits[:_MAX_MISFITS])
    return f"Nothing that fits, so no speed: {pairs}."


def _decoding(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.record.work.n_gen]


def _shortest_context(runs: Sequence[Run]) -> list[Run]:
    """Of each series and label, the run behind the fewest tokens; the fastest first."""
    best: dict[tuple[str, Label], Run] = {}
    for run in sorted(runs, key=lambda run: (run.record.work.depth, -run.record.work.n_gen)):
        best.setdefault((run.series, run.label), run)
    return sorted(best.values(), key=lambda run: -run.speed)


def _rows(runs: Sequence[Run]) -> list[BarRow]:
    """One row per series, in the order of its fastest bar; in a row, measured comes before predicted."""
    rows: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        rows[run.series].append(run)
    order = list(Label)
    return [
        BarRow(name, tuple(_bar(run) for run in sorted(group, key=lambda run: order.index(run.label))))
        for name, group in rows.items()
    ]


def _refused_rows(misfits: Iterable[Misfit]) -> list[BarRow]:
    """The devices that are too small, the least too small first."""
    return [
        BarRow(misfit.row, (), remark=f"does not fit: {gibibytes(misfit.plan.missing_bytes)} too large")
        for misfit in sorted(misfits, key=lambda misfit: misfit.plan.missing_bytes)
    ]


def _bar(run: Run) -> Bar:
    low, high = run.spread
    words = f"{run.series}: {format_number(run.speed)} tokens per second, {run.label} ({run.record.work.test})"
    remark = "experts streamed" if run.record.settings.get(EXPERTS) == STREAMED else ""
    return Bar(run.label, run.speed, low, high, tip=words, remark=remark)


def _finding(runs: Sequence[Run], misfits: Sequence[Misfit]) -> str:
    """Where the largest model keeps up with a reader, and how fast it is where it is fastest."""
    best = max(headline(runs), key=lambda run: run.speed)
    group = [run for run in runs if run.model == best.model]
    speed = f"{best.model} writes {format_number(best.speed)} tokens per second on {best.row}, {best.label}"
    devices = {run.device for run in group} | {misfit.device for misfit in misfits if misfit.model == best.model}
    if len(devices) == 1:
        return f"{speed}."
    quick = {run.device for run in group if run.speed >= _READING.value}
    return f"{speed}; on {len(quick)} of {len(devices)} devices it keeps up with a reader."


def _table(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        low, high = run.spread
        interval = f"{format_number(low)} to {format_number(high)}"
        rows.append((run.model, run.series, run.label.value, run.record.work.test, format_number(run.speed), interval))
    return Table(("model", "device", "label", "test", "tokens/s", "from, to"), tuple(rows))
