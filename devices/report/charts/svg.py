"""SVG elements, and fitting of text; strings are escaped by the XML writer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

__all__ = [
    "NAME_SHARE",
    "NARROW",
    "Panel",
    "clean",
    "document",
    "fit_name",
    "fit_text",
    "label",
    "node",
    "stack",
    "text_width",
    "wrap_text",
]

NARROW = 520
"""Pixels; in narrower charts names are above their bars instead of beside them."""
NAME_SHARE = 0.38
"""Share of a wide chart's width for names; the same in all panels, so that bars are aligned."""

_EM_WIDTH = 0.6  # of DejaVu Sans, the widest fallback font of browsers
_EM_WIDTH_BOLD = 0.7
_WIDE = frozenset("WF")  # East Asian widths of one em


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of a chart, ``height`` pixels tall, from y = 0."""

    height: float
    elements: tuple[Element, ...]


def node(tag: str, *children: Element, tip: str = "", **attributes: str | float) -> Element:
    """An element. ``class_`` becomes ``class``, other underscores hyphens; ``tip`` is its tooltip."""
    element = Element(tag)
    for name, value in attributes.items():
        written = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
        element.set(name.rstrip("_").replace("_", "-"), clean(written))
    if tip:
        element.append(_with_text("title", tip))
    element.extend(children)
    return element


def label(
    x: float,
    y: float,
    text: str,
    *,
    class_: str = "",
    size: int = 13,
    room: float | None = None,
    anchor: str = "start",
    bold: bool = False,
) -> Element:
    """Text whose baseline begins (or ends) at (x, y), cut to ``room`` pixels; cut text has a tooltip.

    ``bold`` must be set if ``class_`` makes the text bold.
    """
    shown = text if room is None else fit_text(text, room, size, bold=bold)
    element = node("text", x=float(x), y=float(y), font_size=size, class_=class_, text_anchor=anchor)
    element.text = clean(shown)
    if shown != text:
        element.append(_with_text("title", text))
    return element


def document(panel: Panel, width: int, *, title: str, description: str, name: str) -> str:
    """``panel`` as an SVG document with a title and a description for screen readers.

    Args:
        panel: the chart.
        width: pixels; the page does not scale it, so that text keeps its size.
        title: the question of the figure.
        description: the finding of the figure.
        name: prefix of ids, unique in the page.
    """
    heading, words = _with_text("title", title), _with_text("desc", description)
    heading.set("id", f"{name}-title")
    words.set("id", f"{name}-desc")
    root = node("svg", heading, words, xmlns="http://www.w3.org/2000/svg", role="img", class_="chart")
    root.set("viewBox", f"0 0 {width} {panel.height:.0f}")
    root.set("width", str(width))
    root.set("height", f"{panel.height:.0f}")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    root.extend(panel.elements)
    return ElementTree.tostring(root, encoding="unicode")


def stack(panels: Iterable[Panel], gap: float = 0) -> Panel:
    """Panels one below the other."""
    top, groups = 0.0, []
    for panel in panels:
        groups.append(node("g", *panel.elements, transform=f"translate(0 {top:.1f})"))
        top += panel.height + gap
    return Panel(max(top - gap, 0), tuple(groups))


def text_width(text: str, size: int = 13, *, bold: bool = False) -> float:
    """An upper bound of the width of ``text`` in pixels, for common fonts."""
    narrow = _EM_WIDTH_BOLD if bold else _EM_WIDTH
    return size * sum(1.0 if unicodedata.east_asian_width(letter) in _WIDE else narrow for letter in text)


def fit_text(text: str, room: float, size: int = 13, *, bold: bool = False) -> str:
    """``text``, or its beginning with an ellipsis, so that it fits into ``room`` pixels."""
    if text_width(text, size, bold=bold) <= room:
        return text
    while text and text_width(text + "…", size, bold=bold) > room:
        text = text[:-1]
    return text.rstrip(" ,·") + "…"


def fit_name(name: str, room: float, size: int = 13) -> str:
    """``name`` in ``room`` pixels; of ``device, quantization`` the device is cut, so that rows stay different.

    Example:
        >>> fit_name("Raspberry Pi 4 Model B, 8 GB, int4", 200)
        'Raspberry Pi 4 Mod…, int4'
    """
    device, comma, last = name.rpartition(", ")
    end = f"{comma}{last}"
    left = room - text_width(end, size)
    if text_width(name, size) <= room or not device or left < text_width("MM…", size):
        return fit_text(name, room, size)
    return fit_text(device, left, size) + end


def wrap_text(text: str, room: float, size: int = 13, *, bold: bool = False) -> list[str]:
    """``text`` in lines of at most ``room`` pixels, broken between words; a longer word is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, bold=bold) <= room:
            lines[-1] = longer
        else:
            lines.append(fit_text(word, room, size, bold=bold))
    return lines


def clean(text: str) -> str:
    """``text`` with characters that XML does not allow (controls, surrogates, non-characters) replaced."""
    return "".join(letter if _allowed(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _allowed(letter: str) -> bool:
    return letter in "\t\n" or (letter >= " " and unicodedata.category(letter) not in {"Cc", "Cs", "Cn"})


def _with_text(tag: str, text: str) -> Element:
    element = Element(tag)
    element.text = clean(text)
    return element
