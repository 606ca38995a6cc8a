"""Runs that differ in prompt length or depth, as lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.lines import Axis, Limit, Line, draw_lines
from sprat.devices.report.figures.figure import Draw
from sprat.devices.report.names import write_tokens
from sprat.devices.report.runs import Run, by_model

__all__ = ["curve_panels"]

Point = tuple[float, float]
_MAX_LINES = 16  # names at their ends are then not pushed far from them


def curve_panels(
    runs: Sequence[Run],
    *,
    point: Callable[[Run], Point],
    x_title: str,
    y: Axis,
    logarithmic: bool,
    limits: Sequence[Limit] = (),
) -> list[tuple[str, Draw]]:
    """One panel per model, with one line per series and label through ``point`` of each run."""
    panels: list[tuple[str, Draw]] = []
    for model, group in by_model(runs).items():
        ticks = tuple(sorted({point(run)[0] for run in group}))
        x = Axis(x_title, write_tokens, logarithmic=logarithmic, ticks=ticks)
        lines = _lines(group, point)
        kept = _most_telling(lines)
        title = model if len(kept) == len(lines) else f"{model}, {len(kept)} of {len(lines)} lines; all in the table"
        panels.append((title, partial(draw_lines, kept, x, y, limits=limits)))
    return panels


def _most_telling(lines: Sequence[Line]) -> list[Line]:
    """All lines that were run, and predictions evenly spaced by their ends, so that all can be told apart."""
    ordered = sorted(lines, key=lambda line: line.points[-1][1])
    ran = [line for line in ordered if line.kind is not Label.PREDICTED]
    predicted = [line for line in ordered if line.kind is Label.PREDICTED]
    n_kept = max(_MAX_LINES - len(ran), 2)
    if len(predicted) > n_kept:
        predicted = [predicted[round(index * (len(predicted) - 1) / (n_kept - 1))] for index in range(n_kept)]
    kept = {id(line) for line in (*ran, *predicted)}
    return [line for line in lines if id(line) in kept]


def _lines(runs: Iterable[Run], point: Callable[[Run], Point]) -> list[Line]:
    groups: dict[tuple[str, Label], list[Point]] = defaultdict(list)
    for run in runs:
        groups[run.series, run.label].append(point(run))
    return _merged(Line(name, kind, tuple(sorted(points))) for (name, kind), points in groups.items())


def _merged(lines: Iterable[Line]) -> list[Line]:
    """Merge identical lines into one, whose name has the number of the others."""
    same: dict[object, list[Line]] = defaultdict(list)
    for line in lines:
        same[line.kind, line.points].append(line)
    return [
        replace(group[0], name=group[0].name + (f" and {len(group) - 1} more" if len(group) > 1 else ""))
        for group in same.values()
    ]
