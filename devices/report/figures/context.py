"""Decode speed by depth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.lines import Axis
from sprat.devices.report.charts.marks import legend
from sprat.devices.report.figures.curves import curve_panels
from sprat.devices.report.figures.figure import Figure, Table, titled
from sprat.devices.report.runs import Evidence, Run, headline
from sprat.text import format_number

__all__ = ["context_figure"]

_QUESTION = "Decode speed by depth, in tokens per second"


def context_figure(evidence: Evidence) -> Figure:
    """Decode speed at every depth, for the series that have more than one."""
    curves = _curves(evidence.runs)
    if not curves:
        finding = "No run decoded at more than one depth: `sprat bench -d 0,4096` adds some."
        return Figure(slug="context", question=_QUESTION, finding=finding)
    shown = [run for curve in curves for run in curve]
    panels = curve_panels(
        shown,
        point=lambda run: (float(_depth(run)), run.speed),
        x_title="depth, tokens in the KV cache",
        y=Axis("tokens per second", "{:g}".format, from_zero=True),
        logarithmic=False,
    )
    key = partial(legend, {run.label for run in shown}, points=True)
    return Figure(
        slug="context",
        question=_QUESTION,
        finding=_finding(curves),
        note="Higher is better; a flat line is best.",
        draw=titled([("", key), *panels]),
        table=_table(shown),
    )


def _curves(runs: Sequence[Run]) -> list[list[Run]]:
    """For each model, series and label with several depths: the longest run at each depth, by depth."""
    groups: dict[tuple[str, str, Label], dict[int, Run]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: run.record.work.n_gen):
        if run.record.work.n_gen:
            groups[run.model, run.series, run.label][_depth(run)] = run
    return [sorted(group.values(), key=_depth) for group in groups.values() if len(group) > 1]


def _depth(run: Run) -> int:
    return run.record.work.depth


def _finding(curves: Sequence[Sequence[Run]]) -> str:
    ends = headline([curve[-1] for curve in curves])
    curve = max((curve for curve in curves if curve[-1] in ends), key=lambda curve: _depth(curve[-1]))
    first, last = curve[0], curve[-1]
    kept = last.speed / first.speed
    subject = f"At depth {_depth(last):,}, {last.model}"
    if kept >= 1:  # noise: more KV entries are never faster
        return f"{subject} decodes as fast as at depth {_depth(first):,} on {last.series} ({last.label})."
    return f"{subject} keeps {kept:.0%} of its speed on {last.series} ({last.label})."


def _table(runs: Sequence[Run]) -> Table:
    rows = tuple((run.model, run.series, run.label.value, f"{_depth(run):,}", format_number(run.speed)) for run in runs)
    return Table(("model", "device", "label", "depth", "tokens/s"), rows)
