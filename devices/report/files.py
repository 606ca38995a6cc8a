"""Files of a report appear when they are whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from sprat.errors import ExportError

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whose folder is made, under another name first.

    Raises:
        ExportError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise ExportError(f"{path}: cannot be written ({error.strerror}); choose another place with -o") from error
