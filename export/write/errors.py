"""Errors of the operating system while an output is written, as :class:`~sprat.errors.ExportError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sprat.errors import ExportError

__all__ = ["export_errors"]


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
