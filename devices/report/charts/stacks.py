"""Memory maps: the parts of a device's memory as a stacked bar, the memory itself as an outline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from sprat.devices.bench.results import Label
from sprat.devices.report.charts.marks import hatching
from sprat.devices.report.charts.scale import shared_ends
from sprat.devices.report.charts.svg import NAME_SHARE, NARROW, Panel, fit_name, label, node, text_width
from sprat.text import human_bytes

__all__ = ["MemoryRow", "MemoryScale", "draw_memory", "memory_scales", "part_names", "parts_legend"]

_THICK = 22
_ROW_GAP = 14
_N_COLOURS = 6
_ORDER = ("resident weights", "experts", "cache", "buffers", "reserve")
_SPARE = "spare"  # the empty end of the outline


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """One model on one device; ``total_bytes`` is the device's memory, ``None`` if unknown."""

    name: str
    kind: Label
    parts: tuple[tuple[str, int], ...]
    total_bytes: int | None
    refused_bytes: int = 0  # missing bytes of its plan, with experts streamed
    missing_from: str = "of memory"

    @property
    def used_bytes(self) -> int:
        """Bytes of all parts except the spare one."""
        return sum(size for name, size in self.parts if name != _SPARE)

    @property
    def beyond_bytes(self) -> int:
        """Bytes of the parts beyond the memory; 0 if they fit or the memory is unknown."""
        return max(self.used_bytes - self.total_bytes, 0) if self.total_bytes else 0

    @property
    def missing_bytes(self) -> int:
        """Missing bytes."""
        return self.refused_bytes or self.beyond_bytes


@dataclass(frozen=True, slots=True)
class MemoryScale:
    """The scale of one panel or of several: bytes at the right end, and pixels for the verdicts."""

    high: float
    room: float


def memory_scales(panels: Sequence[Sequence[MemoryRow]]) -> list[MemoryScale]:
    """The scale of each panel of one chart: the same, unless the bars of a panel would be invisible."""
    ends = shared_ends([float(max(map(_end, rows), default=0)) for rows in panels])
    room = max((text_width(_verdict(row)) for rows in panels for row in rows), default=0.0) + 10
    return [MemoryScale(end or 1.0, room) for end in ends]


def draw_memory(
    rows: Sequence[MemoryRow], names: Sequence[str], width: int, *, scale: MemoryScale | None = None
) -> Panel:
    """``rows`` on one scale, so that a model has the same length on every device.

    Args:
        rows: from top to bottom.
        names: parts of the legend, in the order of their colours.
        width: pixels.
        scale: of all panels of the chart; by default that of these rows.
    """
    scale = scale or memory_scales([rows])[0]
    titles = NAME_SHARE * width + 12 if width >= NARROW else 0.0
    per_byte = (width - titles - (scale.room if titles else 2)) / scale.high
    y, elements = 0.0, []
    for row in rows:
        if titles:
            elements.append(label(0, y + 15.5, fit_name(row.name, titles - 12), room=titles - 12))
            elements.append(_verdict_label(row, titles + _end(row) * per_byte + 8, y + 15.5))
        else:
            if text_width(row.name) + text_width(_verdict(row, short=True)) + 8 > width:
                elements.append(label(0, y + 10, fit_name(row.name, width), room=width))
                y += 16
            else:
                elements.append(label(0, y + 10, row.name))
            elements.append(_verdict_label(row, width, y + 10, short=True))
            y += 18
        elements += _bar(row, titles, y, per_byte, names)
        y += _THICK + _ROW_GAP
    return Panel(y - _ROW_GAP + 2, tuple(elements))


def part_names(rows: Iterable[MemoryRow]) -> list[str]:
    """All parts of ``rows``: those of a plan in its order, then others in order of appearance."""
    found = list(dict.fromkeys(name for row in rows for name, _ in row.parts if name != _SPARE))
    return [name for name in _ORDER if name in found] + [name for name in found if name not in _ORDER]


def _end(row: MemoryRow) -> int:
    return max(row.used_bytes, row.total_bytes or 0)


def _verdict(row: MemoryRow, *, short: bool = False) -> str:
    if row.missing_bytes:
        streamed = " with experts streamed" if 0 < row.refused_bytes < row.beyond_bytes and not short else ""
        return f"{human_bytes(row.missing_bytes)} {row.missing_from} missing{streamed}"
    if row.total_bytes is None:
        return human_bytes(row.used_bytes)
    return f"{human_bytes(row.used_bytes)} of {human_bytes(row.total_bytes)}"


def _verdict_label(row: MemoryRow, x: float, y: float, *, short: bool = False) -> Element:
    """The verdict from ``x`` on; the short one ends there."""
    class_, anchor = "bad" if row.missing_bytes else "number", "end" if short else "start"
    return label(x, y, _verdict(row, short=short), class_=class_, anchor=anchor)


def _bar(row: MemoryRow, left: float, y: float, per_byte: float, names: Sequence[str]) -> list[Element]:
    elements = []
    if row.total_bytes:
        room = row.total_bytes * per_byte
        elements.append(node("rect", x=left, y=y, width=room, height=float(_THICK), class_=f"box {row.kind}"))
    x, inner = left, _THICK - 4.0
    for name, size in row.parts:
        if name != _SPARE:
            tip = f"{row.name}, {name}: {human_bytes(size)} ({row.kind})"
            colour = _colour(names.index(name))
            elements.append(node("rect", x=x, y=y + 2, width=size * per_byte, height=inner, class_=colour, tip=tip))
            x += size * per_byte
    if row.beyond_bytes and row.total_bytes:
        edge = left + row.total_bytes * per_byte
        elements.append(hatching(edge, y + 2, x - edge, inner, class_="beyond"))
        elements.append(node("path", d=f"M{edge:.1f} {y - 3:.1f}v{_THICK + 6}", class_="edge"))
    return elements


def _colour(index: int) -> str:
    return f"part{index % _N_COLOURS}"


def parts_legend(names: Sequence[str], width: int) -> Panel:
    """The parts and their colours, side by side as far as ``width`` allows."""
    elements: list[Element] = []
    x = y = 0.0
    for index, name in enumerate(names):
        needed = 18 + text_width(name) + 16
        if x and x + needed > width:
            x, y = 0.0, y + 20
        elements.append(node("rect", x=x, y=y + 1, width=12.0, height=12.0, class_=_colour(index)))
        elements.append(label(x + 18, y + 11.5, name, class_="muted"))
        x += needed
    return Panel(y + 20, tuple(elements))
