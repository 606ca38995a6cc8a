"""``sprat report``: results and plans as one page of charts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sprat.boundary import public_call
from sprat.devices.report.build import Report, make_report

__all__ = ["report"]


@public_call
def report(
    results: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] = "report.html",
    *,
    png_folder: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Report:
    """Write an HTML page of charts that needs no network, and optionally the same charts as PNG.

    Args:
        results: files of JSON lines from ``sprat bench -o`` and ``sprat plan --json``.
        out: the page.
        png_folder: folder of the PNG files; created if it does not exist. Needs ``sprat[report]``.
        force: replace ``out`` also where it is not a page of ``sprat report``.

    Raises:
        ResultsError: a file is missing, empty, damaged or of another version.
        BackendError: PNG files are requested, and resvg_py or a font is missing.
        ExportError: a file cannot be written, or ``out`` exists and is another kind of file.
    """
    pictures = None if png_folder is None else Path(png_folder)
    return make_report([Path(path) for path in results], Path(out), png_folder=pictures, force=force)
