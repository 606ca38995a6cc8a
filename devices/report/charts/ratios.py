"""Relative errors of predictions around a middle line."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.marks import point
from sprat.devices.report.charts.svg import NAME_SHARE, NARROW, Panel, label, node, text_width
from sprat.text import format_number

__all__ = ["Pair", "draw_ratios"]

_NAME_SHARE_NARROW = 0.34  # of a narrow chart
_ROW = 26
_TOP = 34
_SMALL = 12


@dataclass(frozen=True, slots=True)
class Pair:
    """A predicted value and the measured or emulated one."""

    name: str
    kind: Label  # measured or emulated
    predicted: float
    actual: float

    @property
    def error_share(self) -> float:
        """Relative error of the prediction; positive when it is too high."""
        return self.predicted / self.actual - 1


def draw_ratios(pairs: Sequence[Pair], width: int, *, band: float) -> Panel:
    """``pairs`` from top to bottom in the given order, with a band of ± ``band`` around an error of 0."""
    numbers = [f"{format_number(pair.predicted)} / {format_number(pair.actual)}" for pair in pairs]
    right = width - max(text_width(number) for number in numbers) - 24
    left = (NAME_SHARE if width >= NARROW else _NAME_SHARE_NARROW) * width + 14
    reach = 1.1 * max(math.log1p(band) * 1.2, *(abs(math.log1p(pair.error_share)) for pair in pairs))

    def across(share: float) -> float:  # logarithmic: half and double are equally far from the middle
        return left + (math.log1p(share) + reach) / (2 * reach) * (right - left)

    bottom = float(_TOP + len(pairs) * _ROW)
    elements = _frame(across, band, bottom)
    for index, (pair, number) in enumerate(zip(pairs, numbers, strict=True)):
        y = _TOP + (index + 0.5) * _ROW
        elements.append(label(0, y + 4.5, pair.name, room=left - 14))
        elements += _row(pair, y, across)
        elements.append(label(width, y + 4.5, number, class_="number", anchor="end"))
    return Panel(bottom + 6, tuple(elements))


def _frame(across: Callable[[float], float], band: float, bottom: float) -> list[Element]:
    low, middle, high = across(-band), across(0), across(band)
    top = _TOP - 8.0
    words = {low: f"−{band:.0%}", middle: "exact", high: f"+{band:.0%}"}
    if high - middle < text_width("+35% exact", _SMALL) / 2:  # the labels would overlap on the narrower side
        words = {middle: "exact"}
    return [
        node("rect", x=low, y=top, width=high - low, height=bottom - top, class_="tolerance"),
        node("path", d=f"M{middle:.1f} {top}V{bottom:.1f}", class_="axis"),
        *(label(x, 18, text, size=_SMALL, class_="muted", anchor="middle") for x, text in words.items()),
    ]


def _row(pair: Pair, y: float, across: Callable[[float], float]) -> list[Element]:
    middle, end = across(0), across(pair.error_share)
    tip = f"{pair.name}: predicted {format_number(pair.predicted)}, {pair.kind} {format_number(pair.actual)}"
    stem = node("path", d=f"M{middle:.1f} {y:.1f}H{end:.1f}", class_=f"line {pair.kind}")
    return [stem, point(pair.kind, end, y, tip=f"{tip} ({pair.error_share:+.0%})")]
