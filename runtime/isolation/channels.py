"""``Channels``: what connects the two processes; the parent's ends, and the start of the other process."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading

from sprat.runtime.isolation.messages import Reply, Request, receive_reply, send

__all__ = ["Channels", "start"]

_CHILD = "sprat.runtime.isolation.child"
_STDERR_TAIL = 1 << 16  # bytes: what a pipe holds


class Channels:
    """The parent's ends of a socket for requests and replies, of a pipe for cancels, and of standard error.

    Args:
        packets: the socket.
        cancels: the pipe's end to write to.
        errors: of standard error, the end to read from.
    """

    def __init__(self, packets: int, cancels: int, errors: int) -> None:
        self._packets, self._cancels, self._errors = packets, cancels, errors
        self._poll = select.poll()
        self._poll.register(packets, select.POLLIN)
        self._lock = threading.Lock()
        self._is_open = True

    def send(self, request: Request) -> None:
        """Send a request."""
        send(self._packets, request)

    def wait(self, seconds: float) -> bool:
        """Whether there is a reply, or an end of the process, within this time."""
        return bool(self._poll.poll(1e3 * seconds))

    def receive(self) -> Reply | None:
        """The next reply; ``None`` when the process has ended."""
        return receive_reply(self._packets)

    def cancel(self, number: int) -> None:
        """Cancel a request; from any thread, also once all is closed."""
        with self._lock, contextlib.suppress(OSError):  # the process has ended
            if self._is_open:
                os.write(self._cancels, struct.pack("q", number))

    def stderr_tail(self) -> bytes:
        """The end of the process's standard error."""
        try:
            return os.read(self._errors, _STDERR_TAIL)
        except OSError:
            return b""

    def close(self) -> None:
        """Close all ends; once more does nothing."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                for descriptor in (self._packets, self._cancels, self._errors):
                    os.close(descriptor)


def start(region: int) -> tuple[Channels, subprocess.Popen[bytes]]:
    """Start the other process, which gets the descriptor ``region``.

    It has no terminal and a session of its own, so that Ctrl-C is for the parent. Its working directory is not among
    the places from which it imports.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read_cancels, write_cancels = os.pipe()
    read_errors, write_errors = os.pipe()
    for descriptor in (read_errors, write_errors):
        os.set_blocking(descriptor, False)  # a full pipe stops nobody
    given = (theirs.fileno(), read_cancels, region)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD, *map(str, given), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=write_errors,
            pass_fds=given,
            start_new_session=True,
        )
    except BaseException:
        for descriptor in (ours.detach(), write_cancels, read_errors):
            os.close(descriptor)
        raise
    finally:
        theirs.close()
        os.close(read_cancels)
        os.close(write_errors)
    return Channels(ours.detach(), write_cancels, read_errors), process
