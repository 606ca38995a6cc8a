"""Predicted against measured: how far to trust the predictions of this page."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.marks import legend
from sprat.devices.report.charts.ratios import Pair, draw_ratios
from sprat.devices.report.figures.figure import Draw, Figure, Table, titled
from sprat.devices.report.runs import Evidence, Run, work_words
from sprat.text import format_number

__all__ = ["accuracy_figure"]

_QUESTION = "Predicted against measured, in tokens per second"
_BAND = 0.35  # within which every prediction should lie


def accuracy_figure(evidence: Evidence) -> Figure:
    """The error of every prediction whose very work was also run on, or as, the same device."""
    groups = _groups(evidence.runs)
    everything = [pair for group in groups.values() for pair in group]
    if not everything:
        finding = "Nothing here was both predicted and run on the same device."
        return Figure(slug="accuracy", question=_QUESTION, finding=finding)
    panels: list[tuple[str, Draw]] = [("", partial(legend, {pair.kind for pair in everything}, points=True))]
    panels += [(title, partial(draw_ratios, group, band=_BAND)) for title, group in groups.items()]
    return Figure(
        slug="accuracy",
        question=_QUESTION,
        finding=_finding(everything),
        note=(
            "Right of the middle: the prediction was too fast; left: too slow. Shaded: within 35 %. The page's end "
            "says what an emulation leaves as it is."
        ),
        draw=titled(panels),
        table=_table(groups),
    )


def _groups(runs: Sequence[Run]) -> dict[str, list[Pair]]:
    """Every run beside the prediction of its work, by model, device and label; the most overrated first."""
    predictions = {_work(run): run.speed for run in runs if run.label is Label.PREDICTED}
    groups: dict[str, list[Pair]] = defaultdict(list)
    for run in runs:
        if run.label is not Label.PREDICTED and _work(run) in predictions:
            pair = Pair(work_words(run), run.label, predictions[_work(run)], run.speed)
            groups[f"{run.model} on {run.series}: predicted / {run.label}"].append(pair)
    return {title: sorted(pairs, key=lambda pair: -pair.error_share) for title, pairs in groups.items()}


def _work(run: Run) -> object:
    work = run.record.work
    return run.model, run.row, work.n_prompt, bool(work.n_gen), work.depth


def _finding(pairs: Sequence[Pair]) -> str:
    """A sentence per label: an emulation keeps some of its machine's speed, so that it judges predictions less."""
    return " ".join(_sentence(label, pairs) for label in Label if any(pair.kind is label for pair in pairs))


def _sentence(label: Label, pairs: Sequence[Pair]) -> str:
    errors = [abs(pair.error_share) for pair in pairs if pair.kind is label]
    cases = "1 case" if len(errors) == 1 else f"{len(errors)} cases"
    median, worst = statistics.median(errors), max(errors)
    return f"In {cases}, predictions miss what was {label} by {median:.0%} in the median and {worst:.0%} at worst."


def _table(groups: Mapping[str, Sequence[Pair]]) -> Table:
    rows = tuple(
        (title, pair.name, format_number(pair.predicted), format_number(pair.found), f"{pair.error_share:+.1%}")
        for title, pairs in groups.items()
        for pair in pairs
    )
    return Table(("compared", "case", "predicted tokens/s", "found tokens/s", "error"), rows)
