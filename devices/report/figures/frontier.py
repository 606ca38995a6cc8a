"""Files of one model: divergence from the source against bytes, and against predicted speed on each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.lines import Axis, Line, draw_lines
from sprat.devices.report.figures.figure import Draw, Figure, Table, titled
from sprat.text import format_number

__all__ = ["FrontierPoint", "frontier_figure"]

_SMALLEST_KLD = 1e-7  # drawn on a logarithmic axis


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """One file.

    Attributes:
        maker: what wrote it: ``sprat`` or ``llama-quantize``.
        mix: the mix whose bytes it has.
        nbytes: of all tensors.
        bits_per_weight: scales included.
        kld: mean KL divergence from the source, in nats per token.
        kld_error: its standard error.
        same_top: share of tokens with the source's top token.
        tokens_per_s: device -> predicted decode speed; a device that does not hold the model is left out.
    """

    maker: str
    mix: str
    nbytes: int
    bits_per_weight: float
    kld: float
    kld_error: float
    same_top: float
    tokens_per_s: Mapping[str, float] = field(default_factory=dict)


def frontier_figure(model: str, points: Sequence[FrontierPoint]) -> Figure:
    """The files of ``model`` as lines, one per maker; at least one point."""
    y = Axis("mean KL divergence from the source, nats per token", "{:.2g}".format, logarithmic=True)
    megabytes = Axis("MB of tensors", format_number)
    panels: list[tuple[str, Draw]] = [("", partial(draw_lines, _lines(points), megabytes, y))]
    for device in sorted({device for point in points for device in point.tokens_per_s}):
        speed = Axis("decode at depth 0, tokens per second, predicted", format_number)
        title = f"{device}: divergence against predicted speed"
        panels.append((title, partial(draw_lines, _lines(points, device), speed, y)))
    return Figure(
        slug="frontier",
        question=f"{model}: KL divergence by file size",
        finding=_finding(points),
        note="Lower is better. Divergences are measured on the same text; speeds are predicted from device profiles.",
        draw=titled(panels),
        table=_table(points),
    )


def _lines(points: Sequence[FrontierPoint], device: str = "") -> list[Line]:
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        across = point.tokens_per_s.get(device) if device else point.nbytes / 1e6
        if across is not None:
            found.setdefault(point.maker, []).append((across, max(point.kld, _SMALLEST_KLD)))
    # All are measured; the first maker is drawn as measured values are, the others grey and dotted to tell them apart.
    kinds = dict(zip(found, (Label.MEASURED, *(Label.PREDICTED for _ in found)), strict=False))
    return [Line(maker, kinds[maker], tuple(sorted(places))) for maker, places in found.items()]


def _finding(points: Sequence[FrontierPoint]) -> str:
    by_mix: dict[str, dict[str, FrontierPoint]] = {}
    for point in points:
        by_mix.setdefault(point.mix, {})[point.maker] = point
    pairs = {mix: tuple(found.values()) for mix, found in by_mix.items() if len(found) == 2}
    if not pairs:
        return f"{len(points)} files, {min(p.kld for p in points):.2g} to {max(p.kld for p in points):.2g} nats."
    ratios = [(ours.kld / theirs.kld, mix, ours, theirs) for mix, (ours, theirs) in pairs.items()]
    ratio, mix, ours, theirs = min(ratios)
    return f"In the bytes of {mix}, {ours.maker} has {ratio:.2f} of the divergence of {theirs.maker}."


def _table(points: Sequence[FrontierPoint]) -> Table:
    devices = sorted({device for point in points for device in point.tokens_per_s})
    columns = ("file", "mix", "bytes", "bits per weight", "KLD", "same top", *(f"t/s, {name}" for name in devices))
    rows = tuple(
        (
            point.maker,
            point.mix,
            f"{point.nbytes:,}",
            f"{point.bits_per_weight:.2f}",
            f"{point.kld:.5f} ± {point.kld_error:.5f}",
            f"{point.same_top:.1%}",
            *(format_number(point.tokens_per_s[name]) if name in point.tokens_per_s else "-" for name in devices),
        )
        for point in points
    )
    return Table(columns, rows)
