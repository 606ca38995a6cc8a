"""Time to first token by prompt length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.bars import Bar, BarRow, bar_scales, draw_bars
from sprat.devices.report.charts.lines import Axis, Limit
from sprat.devices.report.charts.marks import legend
from sprat.devices.report.figures.curves import curve_panels
from sprat.devices.report.figures.figure import Draw, Figure, Table, titled
from sprat.devices.report.names import write_tokens
from sprat.devices.report.runs import Evidence, Run, by_model, headline
from sprat.text import format_number

__all__ = ["first_token_figure"]

_QUESTION = "Time to first token by prompt length"
# J. Nielsen, Response Times: The 3 Important Limits (1993), after R. Miller 1968.
_LIMITS = (Limit(1.0, "1 s: flow of thought"), Limit(10.0, "10 s: attention"))
_NOTE = "Lower is better. Both axes are logarithmic. Dashed: response time limits (Nielsen 1993)."


def first_token_figure(evidence: Evidence) -> Figure:
    """Median time to first token at depth 0, on logarithmic axes."""
    shown = [run for run in evidence.runs if _from_empty(run)]
    if not shown:
        finding = "No run has a prompt: `sprat bench -p 128,512,2048` adds some."
        return Figure(slug="first-token", question=_QUESTION, finding=finding)
    groups = by_model(shown)
    several = [run for run in shown if len({_point(other)[0] for other in groups[run.model]}) > 1]
    curves = curve_panels(
        several,
        point=_point,
        x_title="prompt length, tokens",
        y=Axis("time to first token", _tick, logarithmic=True),
        logarithmic=True,
        limits=_LIMITS,
    )
    bars = _bar_panels({model: group for model, group in groups.items() if group[0] not in several})
    kinds = {run.label for run in shown}
    return Figure(
        slug="first-token",
        question=_QUESTION,
        finding=_finding(shown),
        note=_NOTE if curves else "Shorter is better.",
        draw=titled([("", partial(legend, kinds, points=bool(curves))), *curves, *bars]),
        table=_table(shown),
    )


def _bar_panels(groups: Mapping[str, Sequence[Run]]) -> list[tuple[str, Draw]]:
    """For a single prompt length: one bar per series and label, fastest first."""
    rows = {
        f"{model}, a prompt of {write_tokens(_point(runs[0])[0])} tokens": [
            BarRow(run.series, (_bar(run),)) for run in sorted(runs, key=lambda run: _point(run)[1])
        ]
        for model, runs in groups.items()
    }
    scales = bar_scales(list(rows.values()), write=_write_seconds)
    return [
        (title, partial(draw_bars, group, scale=scale, write=_write_seconds, tick=_tick))
        for (title, group), scale in zip(rows.items(), scales, strict=True)
    ]


def _bar(run: Run) -> Bar:
    times, seconds, error = run.record.ttft_ms, _point(run)[1], run.record.error_share or 0.0
    assert times is not None
    high = times.p99 / 1000 if run.label is not Label.PREDICTED else seconds * (1 + error)
    return Bar(run.label, seconds, seconds * max(1 - error, 0), high, tip=f"{run.series}: {_write_seconds(seconds)}")


def _from_empty(run: Run) -> bool:
    work = run.record.work
    return run.record.ttft_ms is not None and work.n_prompt > 0 and not work.depth


def _point(run: Run) -> tuple[float, float]:
    assert run.record.ttft_ms is not None  # _from_empty selects these
    return float(run.record.work.n_prompt), run.record.ttft_ms.p50 / 1000


def _finding(runs: Sequence[Run]) -> str:
    longest = max(headline(runs), key=lambda run: (_point(run)[0], -_point(run)[1]))
    length, seconds = _point(longest)
    return (
        f"With a prompt of {length:,.0f} tokens, the first token of {longest.model} on {longest.series} takes "
        f"{_write_seconds(seconds)} ({longest.label})."
    )


def _table(runs: Sequence[Run]) -> Table:
    rows = []
    for run in sorted(runs, key=lambda run: (run.model, run.series, run.label, run.record.work.n_prompt)):
        times = run.record.ttft_ms
        assert times is not None
        p99 = _write_seconds(times.p99 / 1000)
        length = f"{run.record.work.n_prompt:,}"
        rows.append((run.model, run.series, run.label.value, length, _write_seconds(times.p50 / 1000), p99))
    return Table(("model", "device", "label", "prompt tokens", "p50", "p99"), tuple(rows))


def _write_seconds(seconds: float) -> str:
    if seconds >= 120:
        return f"{seconds / 60:,.0f} min"
    return f"{format_number(seconds)} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _tick(seconds: float) -> str:
    return f"{seconds:,g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"
