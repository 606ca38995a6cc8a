"""Writes the files of a report atomically."""

from __future__ import annotations

from pathlib import Path

from sprat.errors import ExportError
from sprat.files import atomic_write

__all__ = ["write_report_file"]


def write_report_file(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically; its folder is created if it does not exist.

    Raises:
        ExportError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}); choose another path with -o") from error
