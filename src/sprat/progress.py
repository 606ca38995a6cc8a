"""One record and one callback for the progress of everything that takes long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Progress", "ReportProgress", "no_progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a long operation.

    Attributes:
        done: bytes, tokens, tests or problems that are finished.
        total: the same unit, for the whole.
        what: what is being done now: a tensor, a window, a test.
        note: a line to keep in sight, such as how long all of it takes.
        resumes: whether ``done`` are bytes in files that the same call continues after an interruption.
    """

    done: float
    total: float
    what: str
    note: str = ""
    resumes: bool = False


ReportProgress: TypeAlias = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """A callback that does nothing; the default of every ``progress`` argument."""
