"""Writes the files of a report atomically."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sprat.errors import ExportError
from sprat.files import atomic_write, open_input

__all__ = ["check_is_no_input", "check_page", "write_report_file"]

_GENERATOR = b'<meta name="generator" content="sprat '
_HEAD_BYTES = 4096


def check_page(path: Path) -> None:
    """Check that ``path`` is free, or an earlier page of ``sprat report``, which is replaced.

    Raises:
        ExportError: it is another file.
    """
    if not os.path.lexists(path) or path.is_dir():  # a folder fails where it is written
        return
    try:
        with open_input(path) as file:
            is_ours = _GENERATOR in file.read(_HEAD_BYTES)
    except OSError:
        is_ours = False
    if not is_ours:
        raise ExportError(
            f"{path}: exists and is not a page of sprat report; choose another path with -o, or replace it with --force"
        )


def check_is_no_input(path: Path, inputs: Iterable[Path]) -> None:
    """Check that ``path`` is none of the files that a report is made from.

    Raises:
        ExportError: it is one of them, also by another name.
    """
    for each in inputs:
        if path.exists() and each.exists() and path.samefile(each):
            raise ExportError(f"{path}: is {each}, which the report reads; choose another path with -o")


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
