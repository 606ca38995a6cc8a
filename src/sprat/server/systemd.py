"""Tell systemd that the service is ready, alive, and stopping: ``sd_notify``'s datagrams, without its library."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["notify", "notifying"]


def notify(state: str) -> bool:
    """Send ``state`` (``READY=1``, ``WATCHDOG=1``) to the service manager; whether there is one.

    The protocol is described in sd_notify(3): one datagram to the socket in ``$NOTIFY_SOCKET``.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path  # @ is how a name without a file is written
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)
    return True


@contextmanager
def notifying() -> Iterator[None]:
    """Inside the block, the service is ready; the event loop tells the watchdog that it turns, if there is one.

    A loop that hangs stops telling, and systemd restarts the service.
    """
    notify("READY=1")
    beating = asyncio.ensure_future(_beat(interval)) if (interval := _watchdog_interval()) else None
    try:
        yield
    finally:
        notify("STOPPING=1")
        if beating is not None:
            beating.cancel()


def _watchdog_interval() -> float:
    """Seconds between two signs of life, half of what systemd allows; 0 without a watchdog for this process."""
    is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6 if is_for_us else 0.0


async def _beat(interval: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)
