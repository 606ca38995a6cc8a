"""``sprat report``: from results files to an HTML page and PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from sprat.devices.report.figures.accuracy import accuracy_figure
from sprat.devices.report.figures.context import context_figure
from sprat.devices.report.figures.figure import Figure
from sprat.devices.report.figures.first_token import first_token_figure
from sprat.devices.report.figures.heat import heat_figure
from sprat.devices.report.figures.memory_map import memory_figure
from sprat.devices.report.figures.speed import speed_figure
from sprat.devices.report.files import check_is_no_input, check_page, write_report_file
from sprat.devices.report.inputs import read_inputs
from sprat.devices.report.page import render_page
from sprat.devices.report.png import write_pngs
from sprat.devices.report.runs import gather

__all__ = ["FIGURES", "Report", "make_report"]

FIGURES = (speed_figure, first_token_figure, context_figure, memory_figure, accuracy_figure, heat_figure)
"""Figures of the page, in order. To add one, write a function from Evidence to Figure and add it here."""


@dataclass(frozen=True, slots=True)
class Report:
    """The files that were written, and the figures."""

    page: Path
    pictures: tuple[Path, ...]
    figures: tuple[Figure, ...]


def make_report(results: Sequence[Path], out: Path, *, png_folder: Path | None = None, force: bool = False) -> Report:
    """Write the page ``out`` about ``results``, and its charts as PNG files if a folder is given.

    Args:
        results: files of ``sprat bench -o`` or ``sprat plan --json``.
        out: the HTML file.
        png_folder: folder of the PNG files; it is created if it does not exist.
        force: replace ``out`` also where it is not a page of ``sprat report``.

    Raises:
        ResultsError: a file is missing, empty, invalid or of another version.
        BackendError: PNG files are wanted and resvg_py or a font is missing.
        ExportError: a file cannot be written.
    """
    if not force:
        check_page(out)
    check_is_no_input(out, results)
    inputs = read_inputs(results)
    evidence = gather(inputs.records, inputs.refused)
    figures = tuple(figure(evidence) for figure in FIGURES)
    page = render_page(evidence, figures, files=[path.name for path in results], version=metadata.version("sprat"))
    write_report_file(out, page.encode())
    pictures = write_pngs(figures, png_folder) if png_folder else []
    return Report(out, tuple(pictures), figures)
