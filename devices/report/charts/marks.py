"""Marks of the three labels, which differ not by colour alone: measured solid, emulated hatched, predicted hollow."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.svg import Panel, label, node, text_width

__all__ = ["bar", "hatching", "key", "legend", "point"]

_SWATCH_WIDTH = 22
_LINE_HEIGHT = 22
_STROKE_GAP = 6


def bar(kind: Label, x: float, y: float, width: float, height: float, *, tip: str = "") -> Element:
    """A bar with label ``kind``: filled, hatched, or outlined."""
    width = max(width, 1.0)
    outline = node("rect", x=x, y=y, width=width, height=height, rx=2.0, class_=f"bar {kind}", tip=tip)
    if kind is not Label.EMULATED:
        return outline
    return node("g", outline, hatching(x, y, width, height))


def point(kind: Label, x: float, y: float, *, tip: str = "") -> Element:
    """A point with label ``kind``: a disc, a diamond, or a ring."""
    if kind is Label.EMULATED:
        path = f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"
        return node("path", d=path, class_=f"point {kind}", tip=tip)
    return node("circle", cx=float(x), cy=float(y), r=4.0, class_=f"point {kind}", tip=tip)


def key(kind: Label) -> str:
    """Text of a label in the legend."""
    return {
        Label.MEASURED: "measured on the device",
        Label.EMULATED: "emulated on another machine",
        Label.PREDICTED: "predicted, not run",
    }[kind]


def legend(kinds: Iterable[Label], width: int, *, points: bool = False) -> Panel:
    """The labels of a chart, side by side as far as ``width`` allows."""
    elements: list[Element] = []
    x, y = 0.0, 0.0
    for kind in sorted(set(kinds), key=list(Label).index):
        needed = _SWATCH_WIDTH + 6 + text_width(key(kind)) + 18
        if x and x + needed > width:
            x, y = 0.0, y + _LINE_HEIGHT
        elements += _swatch(kind, x, y, points=points)
        elements.append(label(x + _SWATCH_WIDTH + 6, y + 12, key(kind), class_="muted"))
        x += needed
    return Panel(y + _LINE_HEIGHT, tuple(elements))


def _swatch(kind: Label, x: float, y: float, *, points: bool) -> list[Element]:
    if not points:
        return [bar(kind, x, y + 1, _SWATCH_WIDTH, 12)]
    line = node("path", d=f"M{x:.1f} {y + 8:.1f}h{_SWATCH_WIDTH}", class_=f"line {kind}")
    return [line, point(kind, x + _SWATCH_WIDTH / 2, y + 8)]


def hatching(x: float, y: float, width: float, height: float, *, class_: str = "hatch") -> Element:
    """Diagonal strokes over a rectangle. They are paths, since SVG patterns need ids that are unique in the page."""
    strokes = []
    offset = -height
    while offset < width:
        start, stop = max(offset, 0.0), min(offset + height, width)
        low, high = y + height - (start - offset), y + height - (stop - offset)
        strokes.append(f"M{x + start:.1f} {low:.1f}L{x + stop:.1f} {high:.1f}")
        offset += _STROKE_GAP
    return node("path", d="".join(strokes), class_=class_)
