"""The process of an isolated backend: ``python -P -m sprat.runtime.isolation.child SOCKET CANCELS REGION PARENT``.

The first three are descriptors: of the socket of :mod:`~sprat.runtime.isolation.messages`, of a pipe from which the
numbers of cancelled requests come, and of the region. The sandbox is entered before the model is opened and before
NumPy is imported, whose threads would stay outside. A backend that opens a device is in no sandbox: its driver opens
files, writes what it compiled, and allocates what no limit knows.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from types import TracebackType

from sprat.runtime.isolation.messages import Load, receive_request
from sprat.runtime.sandbox.enter import enter_sandbox

__all__ = ["main"]


def main(descriptor: int, cancels: int, region: int, parent: int) -> None:
    """Load the model of the first request, and answer requests until the other side closes the socket."""
    load = receive_request(descriptor)
    if not isinstance(load, Load):
        return
    if load.opens_device:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a driver may abort: write no core file
    else:
        enter_sandbox(map(Path, load.readable), load.limit_bytes)

    from sprat.runtime.isolation.server import Server

    Server(descriptor, cancels, region).run(load, parent, end=_end)


def _end(status: int = 0) -> None:
    os._exit(status)  # whatever other threads do: nothing is written here


def _end_with(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)  # its last line is what the other process shows
    _end(1)


if __name__ == "__main__":
    sys.excepthook = _end_with
    main(*map(int, sys.argv[1:]))
    _end()
