"""A figure of a report: a finding in words, a chart for any width, and a data table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sprat.devices.report.charts.svg import Panel, label, stack, wrap_text

__all__ = ["Draw", "Figure", "Table", "scales_note", "titled"]

Draw = Callable[[int], Panel]
_PANEL_GAP = 24
_TITLE_SIZE = 14
_BOLD_SHARE = 0.9  # of a line's width for bold text, which is wider


@dataclass(frozen=True, slots=True)
class Table:
    """Accessible data table of a chart."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure; without ``draw`` it is empty and ``finding`` has the reason."""

    slug: str  # name of its PNG file and anchor: "speed"
    question: str  # what is drawn, with the unit
    finding: str  # what it shows, in a sentence
    note: str = ""  # how to read it
    draw: Draw | None = None
    table: Table = field(default_factory=Table)


def scales_note(scales: Sequence[object]) -> str:
    """Whether the panels of a chart share their scale, as a sentence; empty for one panel."""
    if len(scales) < 2:
        return ""
    if len(set(scales)) == 1:
        return " All panels have one scale."
    return " Scales differ where bars would be too short to see: compare the values on the axes."


def titled(panels: Iterable[tuple[str, Draw]]) -> Draw:
    """Charts one below the other, each below its title; an empty title is omitted."""
    parts = list(panels)

    def draw(width: int) -> Panel:
        return stack((_under_title(title, part(width), width) for title, part in parts), gap=_PANEL_GAP)

    return draw


def _under_title(title: str, panel: Panel, width: int) -> Panel:
    if not title:
        return panel
    lines = wrap_text(title, _BOLD_SHARE * width, _TITLE_SIZE)
    words = (label(0, 13 + 19 * index, line, size=_TITLE_SIZE, class_="heading") for index, line in enumerate(lines))
    return stack([Panel(19 * len(lines) + 7, tuple(words)), panel])
