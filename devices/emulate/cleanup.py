"""Removes control groups when the process that created them has ended, also after ``kill -9``.

``python -m sprat.devices.emulate.cleanup FOLDER...`` reads its standard input to the end: a pipe whose other end the
measuring process holds. Then it kills the remaining members of the groups and removes the groups.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

__all__ = ["clean_up"]

_TIMEOUT_SECONDS = 20.0  # a process that reads from a throttled disk dies only after the read


def clean_up(folders: list[Path]) -> list[Path]:
    """Kill the members of the groups and remove the groups; returns those that could not be removed."""
    end = time.monotonic() + _TIMEOUT_SECONDS
    left = [folder for folder in folders if folder.exists()]
    while left and time.monotonic() < end:
        for folder in left:
            _kill_members(folder)
            with contextlib.suppress(OSError):  # a member is still dying: try again
                folder.rmdir()
        left = [folder for folder in left if folder.exists()]
        time.sleep(0.02 if left else 0.0)
    return left


def _kill_members(folder: Path) -> None:
    with contextlib.suppress(OSError):  # the group no longer exists
        for pid in (folder / "cgroup.procs").read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    if stuck := clean_up([Path(folder) for folder in sys.argv[1:]]):
        sys.exit(f"sprat: these control groups could not be removed: {', '.join(map(str, stuck))}")
