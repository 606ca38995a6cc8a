"""Message after Ctrl-C in a command that can be continued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sprat.progress import Progress, ReportProgress
from sprat.text import human_bytes

__all__ = ["continues_after_interruption"]

_READING = "reading the source"  # the first pass of an export, which begins again


@contextmanager
def continues_after_interruption(report: ReportProgress) -> Iterator[ReportProgress]:
    """A callback that passes progress on to ``report``; Ctrl-C gets a message: how much is kept, how to continue."""
    last: Progress | None = None

    def remember(state: Progress) -> None:
        nonlocal last
        last = state
        report(state)

    try:
        yield remember
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(_kept(last)) from interruption


def _kept(last: Progress | None) -> str:
    if last is None or last.what == _READING:
        return "nothing is lost: the same command begins again, or continues what an earlier one has written"
    if not last.resumes:
        return "nothing was written meanwhile; the same command goes on from what was measured"
    size = f"{human_bytes(int(last.done))} of {human_bytes(int(last.total))}"
    return f"{size} are written; the same command continues at {last.what}"
