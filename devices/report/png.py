"""The charts as PNG or SVG files, each with its finding and note, for slides and messages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from sprat.devices.report.charts.svg import Panel, document, label, node, stack, wrap_text
from sprat.devices.report.figures.figure import Figure
from sprat.devices.report.files import write_report_file
from sprat.devices.report.palette import LIGHT, resolve
from sprat.errors import BackendError, InputError

__all__ = ["check_picture", "write_picture", "write_pngs"]

_WIDTH = 720
_MARGIN = 28
_ZOOM = 2
_LETTER = '<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="20" height="20"><text y="16">M</text></svg>'


def write_pngs(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """One PNG per figure that is not empty, named by its slug.

    Raises:
        BackendError: resvg_py is not installed, or the machine has no font.
        ExportError: a file cannot be written.
    """
    _check_font()
    written = []
    for figure in figures:
        if figure.draw:
            written.append(folder / f"{figure.slug}.png")
            write_report_file(written[-1], _render(_poster(figure)))
    return written


def check_picture(path: Path, *, force: bool = False) -> None:
    """Check, before what it shows is measured, that a picture can have this name and be drawn.

    Raises:
        InputError: another suffix than ``.svg`` and ``.png``, the name is taken, or the folder can be neither written
            nor created; ``force`` replaces a file.
        BackendError: as :func:`write_pngs`, of a PNG.
    """
    if path.suffix not in {".svg", ".png"}:
        raise InputError(f"{path}: a picture is a .svg or .png file; give one of these names")
    if os.path.lexists(path) and not (force and path.is_file()):
        raise InputError(f"{path}: exists; choose another name, or replace a file with --force")
    nearest = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise InputError(f"{path}: {nearest} is not a folder that can be written; choose another place")
    if path.suffix == ".png":
        _check_font()


def write_picture(figure: Figure, path: Path, *, force: bool = False) -> None:
    """A figure that is not empty as an SVG with its style, or as a PNG, by the suffix of ``path``.

    Raises:
        InputError: as :func:`check_picture`.
        BackendError: as :func:`write_pngs`, of a PNG.
        ExportError: the file cannot be written.
    """
    check_picture(path, force=force)
    if path.suffix == ".svg":
        write_report_file(path, _poster(figure).replace(">", f"><style>{_style()}</style>", 1).encode())
    else:
        write_report_file(path, _render(_poster(figure)))


def _check_font() -> None:
    """Check that there is a font: without one the renderer silently omits text."""
    if _render(_LETTER) == _render(_LETTER.replace(">M<", "><")):
        raise BackendError("no font found, PNG files would have no text: apt install fonts-dejavu-core")


def _poster(figure: Figure) -> str:
    """The figure as SVG with margins, title, finding and note."""
    assert figure.draw is not None
    parts = [
        _paragraph(figure.question, 13, "muted"),
        _paragraph(figure.finding, 19, "heading"),
        Panel(8, ()),
        figure.draw(_WIDTH),
        Panel(8, ()),
        _paragraph(figure.note, 12, "muted"),
    ]
    content = stack(parts, gap=4)
    height = content.height + 2 * _MARGIN
    width = _WIDTH + 2 * _MARGIN
    moved = node("g", *content.elements, transform=f"translate({_MARGIN} {_MARGIN})")
    return document(Panel(height, (moved,)), width, title=figure.question, description=figure.finding, name=figure.slug)


def _paragraph(text: str, size: int, class_: str) -> Panel:
    lines = wrap_text(text, _WIDTH, size)
    line_height = round(size * 1.35)
    words = [label(0, size + index * line_height, line, size=size, class_=class_) for index, line in enumerate(lines)]
    return Panel(line_height * len(lines), tuple(words))


def _render(svg: str) -> bytes:
    try:
        import resvg_py
    except ImportError as error:
        raise BackendError("PNG files need resvg_py, which is not installed: pip install 'sprat[report]'") from error
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, style_sheet=_style(), background=LIGHT["paper"], zoom=_ZOOM))


def _style() -> str:
    return resolve((resources.files("sprat.devices.report") / "chart.css").read_text(encoding="utf-8"), LIGHT)
