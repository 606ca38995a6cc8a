"""Horizontal bars: one row per device, one bar per label, each with its value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.marks import bar
from sprat.devices.report.charts.svg import NAME_SHARE, NARROW, Panel, label, node, text_width
from sprat.text import format_number

__all__ = ["Bar", "BarRow", "Mark", "draw_bars"]

_THICK = 16
_GAP = 4
_ROW_GAP, _ROW_GAP_NARROW = 10, 14
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
class _Frame:
    """End of the names, begin and end of the bars, in pixels."""

    names: float
    left: float
    right: float
    high: float
    gap: float
    write: Callable[[float], str]

    def x(self, value: float) -> float:
        return self.left + value / self.high * (self.right - self.left)


def draw_bars(
    rows: Sequence[BarRow], width: int, *, mark: Mark | None = None, write: Callable[[float], str] = format_number
) -> Panel:
    """``rows`` from top to bottom in the given order; bars begin at zero. ``mark`` is drawn if it is in the scale."""
    frame = _frame(rows, width, write)
    shown = mark if mark and _MIN_MARK * frame.high < mark.value < frame.high else None
    y = 24.0 if shown else 0.0
    elements: list[Element] = []
    for row in rows:
        drawn, y = _row(row, y, frame, width)
        elements += drawn
    if shown:
        elements = _mark(shown, frame, y - frame.gap, width) + elements
    return Panel(y - frame.gap + 2, tuple(elements))


def _frame(rows: Sequence[BarRow], width: int, write: Callable[[float], str]) -> _Frame:
    bars = [each for row in rows for each in row.bars]
    high = max((each.high for each in bars), default=1.0)
    values = max((_value_width(each, write) for each in bars), default=0.0) + 10
    right = width - values
    if width < NARROW:
        return _Frame(0.0, 0.0, right, high, _ROW_GAP_NARROW, write)
    return _Frame(NAME_SHARE * width, NAME_SHARE * width + 12, right, high, _ROW_GAP, write)


def _row(row: BarRow, y: float, frame: _Frame, width: int) -> tuple[list[Element], float]:
    elements: list[Element] = []
    height = max(len(row.bars), 1) * (_THICK + _GAP) - _GAP
    if frame.names:
        elements.append(label(0, y + height / 2 + 4.5, row.name, room=frame.names))
    else:
        elements.append(label(0, y + 10, row.name, room=width))
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
