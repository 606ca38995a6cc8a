"""Time to first token against prompt length: how long one waits before anything happens."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.devices.report.charts.lines import Axis, Limit
from sprat.devices.report.charts.scale import format_number
from sprat.devices.report.figures.curves import curve_panels
from sprat.devices.report.figures.figure import Figure, Table
from sprat.devices.report.runs import Evidence, Run, headline

__all__ = ["first_token_figure"]

_QUESTION = "Time to first token, by length of the prompt"
# J. Nielsen, Response Times: The 3 Important Limits (1993), after R. Miller 1968.
_LIMITS = (Limit(1.0, "1 s keeps the flow"), Limit(10.0, "10 s loses attention"))


def first_token_figure(evidence: Evidence) -> Figure:
    """Median time until the first token, from an empty cache; both axes in equal ratios."""
    shown = [run for run in evidence.runs if _from_empty(run)]
    if not shown:
        finding = "No run read a prompt: `sprat bench -p 128,512,2048` adds some."
        return Figure(slug="first-token", question=_QUESTION, finding=finding)
    draw = curve_panels(
        shown,
        point=_point,
        x_title="tokens of prompt",
        y=Axis("time to first token", _tick, logarithmic=True),
        logarithmic=True,
        limits=_LIMITS,
    )
    return Figure(
        slug="first-token",
        question=_QUESTION,
        finding=_finding(shown),
        note="Lower is better. Both axes count in ratios. Dashed: limits of patience (Nielsen 1993).",
        draw=draw,
        table=_table(shown),
    )


def _from_empty(run: Run) -> bool:
    work = run.record.work
    return run.record.ttft_ms is not None and work.n_prompt > 0 and not work.depth


def _point(run: Run) -> tuple[float, float]:
    assert run.record.ttft_ms is not None  # the figure takes no others
    return float(run.record.work.n_prompt), run.record.ttft_ms.p50 / 1000


def _finding(runs: Sequence[Run]) -> str:
    longest = max(headline(runs), key=lambda run: (_point(run)[0], -_point(run)[1]))
    length, seconds = _point(longest)
    return (
        f"A prompt of {length:,.0f} tokens keeps {longest.series} busy for {_write_seconds(seconds)} "
        f"before {longest.model} answers ({longest.label})."
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
