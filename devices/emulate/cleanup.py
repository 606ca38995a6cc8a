"""Removes control groups when the process that made them is gone, however it went.

``python -m sprat.devices.emulate.cleanup FOLDER...`` reads its standard input to the end: the other side of that pipe
is held by the process that measures, and closes with it, also after ``kill -9``. Then it kills what is left in the
groups and removes them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

__all__ = ["clean_up"]

_PATIENCE_SECONDS = 20.0  # a process in the middle of a read from a throttled disk takes its time to die


def clean_up(folders: list[Path]) -> list[Path]:
    """Kill what is left in the groups and remove them; returns those that would not go."""
    end = time.monotonic() + _PATIENCE_SECONDS
    left = [folder for folder in folders if folder.exists()]
    while left and time.monotonic() < end:
        for folder in left:
            _kill_members(folder)
            with contextlib.suppress(OSError):  # a member is still dying: again in a moment
                folder.rmdir()
        left = [folder for folder in left if folder.exists()]
        time.sleep(0.02 if left else 0.0)
    return left


def _kill_members(folder: Path) -> None:
    with contextlib.suppress(OSError):  # the group is gone
        for pid in (folder / "cgroup.procs").read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    if stuck := clean_up([Path(folder) for folder in sys.argv[1:]]):
        sys.exit(f"sprat: these control groups could not be removed: {', '.join(map(str, stuck))}")
