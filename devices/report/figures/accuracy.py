"""Predicted against measured: the errors of the predictions on this page."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.marks import legend
from sprat.devices.report.charts.ratios import Pair, draw_ratios
from sprat.devices.report.figures.figure import Draw, Figure, Table, titled
from sprat.devices.report.runs import Evidence, Run, test_name
from sprat.text import format_number

__all__ = ["accuracy_figure"]

_QUESTION = "Predicted against measured, in tokens per second"
_BAND = 0.35  # relative error that predictions should stay within


def accuracy_figure(evidence: Evidence) -> Figure:
    """The error of every prediction whose test was also measured, or emulated, on the same device."""
    groups = _groups(evidence.runs)
    everything = [pair for group in groups.values() for pair in group]
    if not everything:
        finding = "No test was both predicted and run on the same device."
        return Figure(slug="accuracy", question=_QUESTION, finding=finding)
    panels: list[tuple[str, Draw]] = [("", partial(legend, {pair.kind for pair in everything}, points=True))]
    panels += [(title, partial(draw_ratios, group, band=_BAND)) for title, group in groups.items()]
    return Figure(
        slug="accuracy",
        question=_QUESTION,
        finding=_finding(everything),
        note=(
            "Right of the middle: predicted too fast; left: predicted too slow. Shaded: within 35 %. What is not "
            "emulated is listed under Sources."
        ),
        draw=titled(panels),
        table=_table(groups),
    )


def _groups(runs: Sequence[Run]) -> dict[str, list[Pair]]:
    """Every run with the prediction of its test, by model, device and label; the largest overestimate first."""
    predictions = {_work(run): run.speed for run in runs if run.label is Label.PREDICTED}
    groups: dict[str, list[Pair]] = defaultdict(list)
    for run in runs:
        if run.label is not Label.PREDICTED and _work(run) in predictions:
            pair = Pair(test_name(run), run.label, predictions[_work(run)], run.speed)
            groups[f"{run.model} on {run.series}: predicted / {run.label}"].append(pair)
    return {title: sorted(pairs, key=lambda pair: -pair.error_share) for title, pairs in groups.items()}


def _work(run: Run) -> object:
    work = run.record.work
    return run.model, run.row, work.n_prompt, bool(work.n_gen), work.depth


def _finding(pairs: Sequence[Pair]) -> str:
    """A sentence per label, since an emulated run keeps some of its machine's speed."""
    return " ".join(_sentence(label, pairs) for label in Label if any(pair.kind is label for pair in pairs))


def _sentence(label: Label, pairs: Sequence[Pair]) -> str:
    errors = [abs(pair.error_share) for pair in pairs if pair.kind is label]
    cases = "1 case" if len(errors) == 1 else f"{len(errors)} cases"
    median, worst = statistics.median(errors), max(errors)
    return f"{cases} {label}: the median error of the predictions is {median:.0%}, the worst {worst:.0%}."


def _table(groups: Mapping[str, Sequence[Pair]]) -> Table:
    rows = tuple(
        (title, pair.name, format_number(pair.predicted), format_number(pair.actual), f"{pair.error_share:+.1%}")
        for title, pairs in groups.items()
        for pair in pairs
    )
    return Table(("compared", "case", "predicted tokens/s", "measured tokens/s", "error"), rows)
