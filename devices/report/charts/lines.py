"""Line charts; each line is labelled at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.marks import point
from sprat.devices.report.charts.scale import Scale, linear, logarithmic, spread_out, thin_out
from sprat.devices.report.charts.svg import NARROW, Panel, label, node, text_width, wrap_text

__all__ = ["Axis", "Limit", "Line", "draw_lines"]

_TOP, _BOTTOM = 26, 40
_NAME_SIZE = 12
_NAME_HEIGHT = 16
_NAME_GAP = 12  # between the plot and names
_MAX_LINES = 3
_INSET = 10
_DENSE = 40  # a line with this many points is drawn without point marks


@dataclass(frozen=True, slots=True)
class Line:
    """One series with one label; points from left to right."""

    name: str
    kind: Label
    points: tuple[tuple[float, float], ...]
    gap: float = math.inf  # points farther apart than this are not joined

    @property
    def is_bold(self) -> bool:
        """Whether its name is bold."""
        return self.kind is Label.MEASURED


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its title with the unit, and the format of its values."""

    title: str
    write: Callable[[float], str]
    logarithmic: bool = False
    from_zero: bool = False
    ticks: tuple[float, ...] = ()  # in place of round values: those of the points


@dataclass(frozen=True, slots=True)
class Limit:
    """A horizontal reference line."""

    value: float
    text: str


@dataclass(frozen=True, slots=True)
class _Plot:
    """The area between the axes."""

    x: Scale
    y: Scale
    left: float
    right: float
    width: int

    @property
    def bottom(self) -> float:
        return self.y.start


def draw_lines(lines: Sequence[Line], x: Axis, y: Axis, width: int, *, limits: Sequence[Limit] = ()) -> Panel:
    """A chart of at least one line, with names at the right end."""
    most = (0.42 if width >= NARROW else 0.4) * width
    names = min(max(text_width(line.name, _NAME_SIZE, bold=line.is_bold) for line in lines) + 16, most)
    name_height = _name_height(lines, width, names - _NAME_GAP)
    height = max(250.0, name_height * len(lines) + 20) + _TOP
    plot = _plot(lines, x, y, width, right=width - names, bottom=height)
    shown = [limit for limit in limits if plot.y.low <= limit.value <= plot.y.high]
    elements = [
        *_grid(plot, x, y),
        *(_level(limit, plot) for limit in shown),
        *(each for line in lines for each in _line(line, plot, x, y)),
        *(_level_name(limit, plot) for limit in shown),
        *_names(lines, plot, name_height),
    ]
    return Panel(height + _BOTTOM, tuple(elements))


def _plot(lines: Sequence[Line], x: Axis, y: Axis, width: int, *, right: float, bottom: float) -> _Plot:
    ys = [value for line in lines for _, value in line.points]
    xs = [value for line in lines for value, _ in line.points]
    upright = _scale(y, ys, bottom, _TOP)
    left = max(text_width(y.write(tick), 12) for tick in upright.ticks) + 8
    return _Plot(_scale(x, xs, left, right), upright, left, right, width)


def _scale(axis: Axis, values: Sequence[float], start: float, stop: float) -> Scale:
    if axis.ticks and min(values) < max(values):  # exactly the values of the points, inset from the edges
        transform = math.log10 if axis.logarithmic else float
        return Scale(min(values), max(values), start + _INSET, stop - _INSET, axis.ticks, transform)
    low, high = (0.0 if axis.from_zero else min(values)), max(values)
    if axis.logarithmic:
        return logarithmic(low, high, start, stop)
    return linear(low, high, start, stop)


def _grid(plot: _Plot, x: Axis, y: Axis) -> list[Element]:
    elements: list[Element] = []
    for tick in plot.y.ticks:
        at = plot.y(tick)
        elements.append(node("path", d=f"M{plot.left:.1f} {at:.1f}H{plot.right:.1f}", class_="grid"))
        elements.append(label(plot.left - 7, at + 4, y.write(tick), size=12, class_="muted", anchor="end"))
    widest = max(text_width(x.write(tick), 12) for tick in x.ticks or plot.x.ticks)
    for tick in thin_out(x.ticks or plot.x.ticks, plot.x, widest + 6):
        at = plot.x(tick)
        elements.append(node("path", d=f"M{at:.1f} {plot.bottom:.1f}v5", class_="axis"))
        elements.append(label(at, plot.bottom + 18, x.write(tick), size=12, class_="muted", anchor="middle"))
    elements.append(node("path", d=f"M{plot.left:.1f} {plot.bottom:.1f}H{plot.right:.1f}", class_="axis"))
    elements.append(label(0, 10, y.title, size=12, class_="muted", room=plot.width))
    elements.append(label(plot.left, plot.bottom + 35, x.title, size=12, class_="muted", room=plot.width))
    return elements


def _level(limit: Limit, plot: _Plot) -> Element:
    return node("path", d=f"M{plot.left:.1f} {plot.y(limit.value):.1f}H{plot.right:.1f}", class_="mark")


def _level_name(limit: Limit, plot: _Plot) -> Element:
    room = plot.right - plot.left - 4
    y = plot.y(limit.value)
    y += 14 if y - _TOP < _NAME_HEIGHT else -5
    return label(plot.left + 4, y, limit.text, size=12, room=room, class_="muted")


def _line(line: Line, plot: _Plot, x: Axis, y: Axis) -> list[Element]:
    places = [(plot.x(across), plot.y(up)) for across, up in line.points]
    elements = [node("path", d=_path(line, places), class_=f"line {line.kind}", tip=line.name)]
    if len(places) < _DENSE:
        elements += [
            point(line.kind, *place, tip=f"{line.name}: {y.write(values[1])} at {x.write(values[0])}")
            for place, values in zip(places, line.points, strict=True)
        ]
    return elements


def _path(line: Line, places: Sequence[tuple[float, float]]) -> str:
    before = -math.inf
    steps = []
    for (value, _), (across, up) in zip(line.points, places, strict=True):
        steps.append(f"{'M' if value - before > line.gap else 'L'}{across:.1f} {up:.1f}")
        before = value
    return "M" + "".join(steps)[1:]


def _names(lines: Sequence[Line], plot: _Plot, name_height: int) -> list[Element]:
    ends = [(plot.x(line.points[-1][0]), plot.y(line.points[-1][1])) for line in lines]
    heights = spread_out([up for _, up in ends], name_height, _TOP, plot.bottom)
    left, elements = plot.right + _NAME_GAP, []
    for line, (across, up), height in zip(lines, ends, heights, strict=True):
        if left - across > 20 or abs(height - up) > _NAME_HEIGHT / 2:
            d = f"M{across + 6:.1f} {up:.1f}L{left - 3:.1f} {height:.1f}"
            elements.append(node("path", d=d, class_="leader"))
        elements += _name(line, left, height, plot.width)
    return elements


def _name(line: Line, left: float, y: float, width: int) -> list[Element]:
    """The name of a line; on a narrow chart it is wrapped."""
    room = width - left
    words = [line.name] if width >= NARROW else wrap_text(line.name, room, _NAME_SIZE, bold=line.is_bold)
    if len(words) > _MAX_LINES:
        words[_MAX_LINES - 1] += "…"
    shown = words[:_MAX_LINES]
    top = y + 4 - (len(shown) - 1) * _NAME_SIZE / 2
    return [
        label(
            left,
            top + index * (_NAME_SIZE + 1),
            text,
            size=_NAME_SIZE,
            room=room,
            class_=f"name {line.kind}",
            bold=line.is_bold,
        )
        for index, text in enumerate(shown)
    ]


def _name_height(lines: Sequence[Line], width: int, room: float) -> int:
    """Height of the name with the most lines of text."""
    if width >= NARROW:
        return _NAME_HEIGHT
    most = max(len(wrap_text(line.name, room, _NAME_SIZE, bold=line.is_bold)) for line in lines)
    return min(most, _MAX_LINES) * (_NAME_SIZE + 1) + 3
