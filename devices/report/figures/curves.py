"""Runs that differ only in one number, as lines: what the figures over prompt length and context share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from sprat.devices.report.charts.lines import Axis, Limit, Line, draw_lines
from sprat.devices.report.charts.marks import legend
from sprat.devices.report.figures.figure import Draw, titled
from sprat.devices.report.names import write_tokens
from sprat.devices.report.runs import Run, by_model
from sprat.devices.results import Label

__all__ = ["curve_panels"]

Point = tuple[float, float]


def curve_panels(
    runs: Sequence[Run],
    *,
    point: Callable[[Run], Point],
    x_title: str,
    y: Axis,
    logarithmic: bool,
    limits: Sequence[Limit] = (),
) -> Draw:
    """One panel per model; in it one line per series and label, through ``point`` of each of its runs."""
    panels: list[tuple[str, Draw]] = [("", partial(legend, {run.label for run in runs}, points=True))]
    for model, group in by_model(runs).items():
        ticks = tuple(sorted({point(run)[0] for run in group}))
        x = Axis(x_title, write_tokens, logarithmic=logarithmic, ticks=ticks)
        panels.append((model, partial(draw_lines, _lines(group, point), x, y, limits=limits)))
    return titled(panels)


def _lines(runs: Iterable[Run], point: Callable[[Run], Point]) -> list[Line]:
    groups: dict[tuple[str, Label], list[Point]] = defaultdict(list)
    for run in runs:
        groups[run.series, run.label].append(point(run))
    return [Line(name, kind, tuple(sorted(points))) for (name, kind), points in groups.items()]
