"""Files of a report appear when they are whole."""

from __future__ import annotations

from pathlib import Path

from sprat.errors import ExportError
from sprat.files import atomic_write

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whose folder is made, under another name first.

    Raises:
        ExportError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}); choose another place with -o") from error
