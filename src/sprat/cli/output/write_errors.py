"""Output that cannot be written: a full disk, a closed standard output, a reader that has ended."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from sprat.errors import SpratError

__all__ = ["check_output", "discard_unwritten", "report_write_errors"]


def check_output() -> None:
    """Check that there is a standard output.

    Raises:
        SpratError: it is closed. The next file that is opened would get its number, and the output with it.
    """
    if sys.stdout is None:
        raise SpratError("standard output is closed; redirect it to a file or to /dev/null")


@contextlib.contextmanager
def report_write_errors() -> Iterator[None]:
    """Turn an error of the operating system that no command expects into one line.

    Raises:
        SpratError: a file, or without a file name the output, cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        subject = error.filename or "the output cannot be written"
        raise SpratError(f"{subject}: {error.strerror or error}") from error


def discard_unwritten() -> None:
    """Drop what standard output has not taken: Python writes it again at exit, and would print a second error."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
