"""Horizontal bars: one row per device, one bar per label, each with its value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.marks import bar
from sprat.devices.report.charts.scale import Scale, linear, shared_ends, thin_out
from sprat.devices.report.charts.svg import NAME_SHARE, NARROW, Panel, fit_name, label, node, text_width
from sprat.text import format_number

__all__ = ["Bar", "BarRow", "BarScale", "Mark", "bar_scales", "draw_bars"]

_THICK = 16
_GAP = 4
_ROW_GAP, _ROW_GAP_NARROW = 10, 14
_AXIS = 18  # height of its values
_MIN_MARK = 0.03  # of the scale; a mark closer to zero is not drawn


@dataclass(frozen=True, slots=True)
class Bar:
    """One value with its interval."""

    kind: Label
    value: float
    low: float
    high: float
    tip: str = ""
    remark: str = ""  # beside the value


@dataclass(frozen=True, slots=True)
class BarRow:
    """The bars of one device."""

    name: str
    bars: tuple[Bar, ...]
    remark: str = ""  # in place of bars: why there are none


@dataclass(frozen=True, slots=True)
class Mark:
    """A value to compare with."""

    value: float
    text: str


@dataclass(frozen=True, slots=True)
class BarScale:
    """The scale of one panel or of several.

    Attributes:
        high: the value at the right end.
        room: pixels for the values, right of the longest bar.
    """

    high: float
    room: float


@dataclass(frozen=True, slots=True)
class _Frame:
    """End of the names in pixels, the scale of the bars, and how values are written."""

    names: float
    x: Scale
    gap: float
    write: Callable[[float], str]

    @property
    def left(self) -> float:
        return self.x.start


def bar_scales(panels: Sequence[Sequence[BarRow]], *, write: Callable[[float], str] = format_number) -> list[BarScale]:
    """The scale of each panel of one chart: the same, so that bars can be compared, unless its bars would be invisible.

    Args:
        panels: the rows of each.
        write: how values are written.
    """
    bars = [[each for row in rows for each in row.bars] for rows in panels]
    ends = shared_ends([max((each.high for each in panel), default=0.0) for panel in bars])
    room = max((_value_width(each, write) for panel in bars for each in panel), default=0.0) + 10
    return [BarScale(end or 1.0, room) for end in ends]


def draw_bars(
    rows: Sequence[BarRow],
    width: int,
    *,
    scale: BarScale | None = None,
    mark: Mark | None = None,
    write: Callable[[float], str] = format_number,
    tick: Callable[[float], str] = "{:,g}".format,
) -> Panel:
    """``rows`` from top to bottom in the given order, over an axis that begins at zero.

    Args:
        rows: the bars.
        width: in pixels.
        scale: of all panels of the chart; by default that of these rows.
        mark: a value to compare with, drawn if it is in the scale.
        write: how values are written.
        tick: how values of the axis are written.
    """
    frame = _frame(scale or bar_scales([rows], write=write)[0], width, write)
    shown = mark if mark and _MIN_MARK * frame.x.high < mark.value < frame.x.high else None
    top = 24.0 if shown else 0.0
    y, elements = top, []
    for row in rows:
        drawn, y = _row(row, y, frame, width)
        elements += drawn
    bottom = y - frame.gap + 2
    if not any(row.bars for row in rows):
        return Panel(bottom, tuple(elements))
    behind = _axis(frame, top, bottom, tick) + (_mark(shown, frame, bottom, width) if shown else [])
    return Panel(bottom + _AXIS, (*behind, *elements))


def _frame(scale: BarScale, width: int, write: Callable[[float], str]) -> _Frame:
    right = width - scale.room
    if width < NARROW:
        return _Frame(0.0, linear(0.0, scale.high, 0.0, right), _ROW_GAP_NARROW, write)
    left = NAME_SHARE * width + 12
    return _Frame(NAME_SHARE * width, linear(0.0, scale.high, left, right), _ROW_GAP, write)


def _axis(frame: _Frame, top: float, bottom: float, write: Callable[[float], str]) -> list[Element]:
    """A line and a value at every tick."""
    _, *ticks = frame.x.ticks
    widest = max(text_width(write(tick), 12) for tick in ticks)
    kept = thin_out((0.0, *ticks), frame.x, widest + 12)
    lines = [node("path", d=f"M{frame.x(tick):.1f} {top:.1f}V{bottom:.1f}", class_="grid") for tick in kept]
    values = [
        label(frame.x(tick), bottom + 14, write(tick), size=12, class_="muted", anchor="middle") for tick in kept[1:]
    ]
    return [*lines, label(frame.left, bottom + 14, "0", size=12, class_="muted"), *values]


def _row(row: BarRow, y: float, frame: _Frame, width: int) -> tuple[list[Element], float]:
    elements: list[Element] = []
    height = max(len(row.bars), 1) * (_THICK + _GAP) - _GAP
    if frame.names:
        elements.append(label(0, y + height / 2 + 4.5, fit_name(row.name, frame.names), room=frame.names))
    else:
        elements.append(label(0, y + 10, fit_name(row.name, width), room=width))
        y += 16
    if not row.bars:
        room = width - frame.left
        elements.append(label(frame.left, y + 12.5, row.remark, room=room, class_="bad"))
    for index, each in enumerate(row.bars):
        elements += _bar(each, y + index * (_THICK + _GAP), frame)
    return elements, y + height + frame.gap


def _bar(each: Bar, y: float, frame: _Frame) -> list[Element]:
    end, middle = frame.x(each.value), y + _THICK / 2
    elements = [bar(each.kind, frame.left, y, end - frame.left, _THICK, tip=each.tip)]
    if each.high > each.low:
        low, high = frame.x(max(each.low, 0.0)), frame.x(each.high)
        caps = f"M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8M{low:.1f} {middle:.1f}H{high:.1f}"
        elements.append(node("path", d=caps, class_="whisker"))
        end = max(end, high)
    elements.append(label(end + 6, middle + 5, frame.write(each.value), size=14, class_=f"number {each.kind}"))
    if each.remark:
        after = end + 14 + text_width(frame.write(each.value), 14)
        elements.append(label(after, middle + 4.5, each.remark, size=12, class_="muted"))
    return elements


def _value_width(each: Bar, write: Callable[[float], str]) -> float:
    return text_width(write(each.value), 14) + (text_width(each.remark, 12) + 8 if each.remark else 0)


def _mark(mark: Mark, frame: _Frame, bottom: float, width: int) -> list[Element]:
    x = frame.x(mark.value)
    line = node("path", d=f"M{x:.1f} 16V{bottom:.1f}", class_="mark")
    before = x + text_width(mark.text, 12) > width
    anchor = "end" if before else "start"
    return [label(x, 10, mark.text, size=12, class_="muted", anchor=anchor), line]
