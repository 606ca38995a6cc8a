"""Errors of the operating system while an output is written, as :class:`~sprat.errors.ExportError`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sprat.errors import ExportError, InputError

__all__ = ["export_errors", "output_path"]


def output_path(out: str | os.PathLike[str]) -> Path:
    """The path of an output.

    Raises:
        InputError: it has no name of its own (``"."``, ``"/"``), or no file can have it.
    """
    path = Path(out)
    if path.name in {"", ".."} or "\0" in str(path):
        raise InputError(f"the output is {str(out)!r}, expected the name of a new file or folder, such as 'out'")
    return path


@contextmanager
def export_errors(path: Path, remedy: str = "choose a writable folder") -> Iterator[None]:
    """Raise an OSError in the body as ExportError.

    Args:
        path: what is being written.
        remedy: what the user can do about it.

    Raises:
        ExportError: ``path``, the system's reason and ``remedy``.
    """
    try:
        yield
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}); {remedy}") from error
