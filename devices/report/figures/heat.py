"""Temperature over time, and the speed of sustained runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.lines import Axis, Line, draw_lines
from sprat.devices.report.charts.marks import legend
from sprat.devices.report.figures.figure import Draw, Figure, Table, titled
from sprat.devices.report.names import machine_title
from sprat.devices.report.runs import Evidence, Run
from sprat.errors import ResultsError

__all__ = ["heat_figure"]

_QUESTION = "Temperature during the tests"
_INTO_RUN = Axis("minutes into the run", "{:g}".format)
_MINUTES = Axis("minutes since the first test began", "{:g}".format)
_LONGEST_GAP = 1.0  # minutes between two readings that one line may join


def heat_figure(evidence: Evidence) -> Figure:
    """The hottest sensor of every device over all of its tests, and the speed of sustained runs over time."""
    ran = [run for run in evidence.runs if run.label is not Label.PREDICTED]
    heat, lasting = _temperatures(ran), _longest_running(ran)
    panels: list[tuple[str, Draw]] = []
    if heat:
        panels.append(("", partial(draw_lines, heat, _MINUTES, Axis("°C, hottest sensor", "{:g}".format))))
    if lasting:
        y = Axis("tokens per second, decode", "{:g}".format, from_zero=True)
        panels.append(
            ("Speed of sustained runs", partial(draw_lines, [_speed_line(run) for run in lasting], _INTO_RUN, y))
        )
    if not panels:
        return Figure(slug="heat", question=_QUESTION, finding=_nothing(ran))
    kinds = {line.kind for line in heat} | {run.label for run in lasting}
    return Figure(
        slug="heat",
        question=_QUESTION,
        finding=" ".join([_finding(ran, heat), *(_lasting_finding(run) for run in lasting[:1])]),
        note="A device that gets too hot throttles. Gaps in a line have no readings.",
        draw=titled([("", partial(legend, kinds, points=True)), *panels]),
        table=_table(ran),
    )


def _temperatures(runs: Iterable[Run]) -> list[Line]:
    groups: dict[tuple[str, Label], list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        start = _start(run).timestamp()
        groups[_place(run), run.label] += [
            ((start + moment.seconds) / 60, moment.temperature_c)
            for moment in run.record.sensors
            if moment.temperature_c is not None
        ]
    return [_from_first(name, kind, sorted(points)) for (name, kind), points in groups.items() if points]


def _from_first(name: str, kind: Label, points: Sequence[tuple[float, float]]) -> Line:
    first = points[0][0]
    return Line(name, kind, tuple((minute - first, value) for minute, value in points), gap=_LONGEST_GAP)


def _longest_running(runs: Sequence[Run]) -> list[Run]:
    """The sustained run at the smallest depth of each model, series and label; largest model first."""
    found: dict[object, Run] = {}
    for run in sorted(runs, key=lambda run: run.record.work.depth):
        if run.record.sustained and run.record.work.n_gen:
            found.setdefault((run.model, run.series, run.label), run)
    return sorted(found.values(), key=lambda run: -run.record.model.size_bytes)


def _speed_line(run: Run) -> Line:
    assert run.record.sustained is not None  # _longest_running selects these
    points = tuple((seconds / 60, speed) for seconds, speed in run.record.sustained.series)
    return Line(f"{run.series}, {run.model}", run.label, points)


def _lasting_finding(run: Run) -> str:
    lasting = run.record.sustained
    assert lasting is not None
    kept = lasting.sustained_tps / lasting.first_tps
    return f"After {lasting.seconds:.0f} s, {run.model} keeps {kept:.0%} of its initial speed ({run.label})."


def _machine(run: Run) -> str:
    """The machine whose temperature it is: for an emulated run, the machine that ran it."""
    machine = run.record.machine
    return machine_title(machine.processor) if run.label is Label.EMULATED and machine else run.device


def _place(run: Run) -> str:
    return f"{_machine(run)} as {run.device}" if run.label is Label.EMULATED else run.device


def _start(run: Run) -> datetime:
    try:
        start = datetime.fromisoformat(run.record.started)
    except ValueError as error:
        raise ResultsError(
            f"{run.model}, {run.record.work.test}: started {run.record.started!r} is not an ISO 8601 time; "
            "write the results again with `sprat bench -o`"
        ) from error
    return start if start.tzinfo else start.replace(tzinfo=UTC)


def _nothing(ran: Sequence[Run]) -> str:
    if not ran:
        return "No run: predictions have no temperature."
    places = " or ".join(dict.fromkeys(_machine(run) for run in ran))
    return f"No temperature sensor on {places}."


def _finding(ran: Sequence[Run], heat: Sequence[Line]) -> str:
    if not heat:
        return _nothing(ran)
    hottest = max(heat, key=lambda line: max(value for _, value in line.points))
    highest = max(value for _, value in hottest.points)
    throttled = " and ".join(dict.fromkeys(_place(run) for run in ran if run.record.throttled))
    if throttled:
        end = f"{throttled} throttled"
    elif all(run.record.throttled is None for run in ran):
        end = "no sensor reports throttling"
    else:
        end = "no throttling"
    return f"{hottest.name} reached {highest:.0f} °C; {end}."


def _table(ran: Sequence[Run]) -> Table:
    rows = tuple(
        (run.model, run.series, run.label.value, run.record.work.test, *_readings(run))
        for run in ran
        if run.record.after
    )
    return Table(("model", "device", "label", "test", "before", "after", "throttled"), rows)


def _readings(run: Run) -> tuple[str, str, str]:
    before, after = (
        "unknown" if moment is None or moment.temperature_c is None else f"{moment.temperature_c:.0f} °C"
        for moment in (run.record.before, run.record.after)
    )
    return before, after, {True: "yes", False: "no", None: "unknown"}[run.record.throttled]
