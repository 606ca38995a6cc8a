"""``ModelProcess``: the process of an isolated backend, as its parent sees it: turns, requests, its end and why."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import msgspec

from sprat.errors import BackendDiedError, BackendError
from sprat.runtime.backends.child_outcome import ChildOutcome
from sprat.runtime.interrupt import Interrupt, check_interrupt, current_interrupt
from sprat.runtime.isolation.channels import Channels, start
from sprat.runtime.isolation.messages import CloseStream, Reply, Request
from sprat.runtime.isolation.region import Region

__all__ = ["ISOLATED", "Expected", "ModelProcess"]

_TURN_S = 0.01  # between looks at the interrupt while another thread has its turn


@dataclass(frozen=True, slots=True)
class Expected:
    """The limits of an isolated process, and the error text for its end.

    Attributes:
        what: it is called in messages.
        remedy: when it has ended.
        grace_s: a pass may go on that long after its cancel or deadline, and twice as long at most.
    """

    what: str = "its isolated process"
    remedy: str = "load the model again"
    grace_s: float = 5.0

    @classmethod
    def of_device(cls, device: str, otherwise: str) -> Self:
        """Limits of a process that a driver can end; a pass on a device stops only where it returns to the CPU."""
        return cls(
            f"the process that computes on {device}",
            f"check the device and its driver and load the model again, or {otherwise}",
            60.0,
        )


ISOLATED = Expected()


class ModelProcess:
    """A process that answers requests; of several threads, one after the other.

    Args:
        what: the model, for messages.
        vocab_size: its logits of a token.
        expected: what the process may do.

    Attributes:
        region: memory for tokens and logits, for who has the turn.
        closed_streams: numbers of streams that nobody uses any more; any thread may append.
    """

    def __init__(self, what: str, vocab_size: int, expected: Expected = ISOLATED) -> None:
        self._what, self._expected = what, expected
        self._owner = os.getpid()
        self._turn = threading.Lock()
        self._number = 0
        self._ended: BackendError | None = None
        self.closed_streams: deque[int] = deque()
        descriptor = Region.create(vocab_size)
        try:
            self.region = Region(descriptor, vocab_size)
            self._channels, self._process = start(descriptor)
        finally:
            os.close(descriptor)
        self._end = weakref.finalize(self, _end, self._channels, self._process, self._owner)

    @property
    def process_id(self) -> int:
        """The process id of the child."""
        return self._process.pid

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """A block of requests of one thread, for which those of others wait; region and replies are its own.

        Raises:
            BackendDiedError: the process has ended.
            BackendError: it was closed; or this is a fork of the process that loaded the model.
            InterruptError: the current interrupt was set while it waited.
        """
        if os.getpid() != self._owner:
            raise BackendError(
                f"the model was loaded by process {self._owner} and is used in process {os.getpid()}, forked from it; "
                "an isolated model answers one process: load it in the child"
            )
        while not self._turn.acquire(timeout=_TURN_S):
            check_interrupt()
        try:
            if self._ended:
                raise type(self._ended)(str(self._ended))
            self._tell_closed()
            yield
        finally:
            self._turn.release()

    def close_streams(self) -> None:
        """Close :attr:`closed_streams` now; or with the next turn, if another thread has it."""
        if os.getpid() == self._owner and not self._ended and self._turn.acquire(blocking=False):
            try:
                with contextlib.suppress(BackendDiedError):
                    self._tell_closed()
            finally:
                self._turn.release()

    def _tell_closed(self) -> None:
        while self.closed_streams:
            self.tell(CloseStream(self.next_number(), self.closed_streams.popleft()))

    def next_number(self) -> int:
        """The number of the next request of this turn."""
        self._number += 1
        return self._number

    def tell(self, request: Request) -> None:
        """Send a request that has no reply.

        Raises:
            BackendDiedError: the process has ended.
        """
        try:
            self._channels.send(request)
        except OSError as error:
            raise self.died(str(error)) from error

    def ask(self, request: Request) -> Reply:
        """Send a request, and wait for its reply. An interrupt of this thread reaches the process.

        An exception of a signal handler leaves the request; its reply is not taken for one to a later request.

        Raises:
            BackendDiedError: the process has ended, or said what it may not.
        """
        self.tell(request)
        interrupt = current_interrupt()

        def cancel() -> None:
            self._channels.cancel(request.number)

        try:
            with interrupt.watch_cancel(cancel) if interrupt else contextlib.nullcontext():
                return self._reply(request.number, interrupt)
        except BaseException:
            cancel()
            raise

    def close(self) -> None:
        """End the process, after the turn of another thread; once more does nothing."""
        if os.getpid() == self._owner:
            with self._turn:
                self._ended = self._ended or BackendError("the engine was closed; load the model again")
                self._end()

    def died(self, why: str = "") -> BackendDiedError:
        """End the process, if it has not ended; the error for this request and all later ones."""
        self._process.kill()
        self._process.wait()
        outcome = ChildOutcome.of(self._process.returncode, self._channels.stderr_tail())
        self._end()
        reasons = "; ".join(filter(None, (outcome.text(), why, _likely_cause(outcome))))
        expected = self._expected
        self._ended = BackendDiedError(f"{self._what}: {expected.what} ended ({reasons}); {expected.remedy}")
        return self._ended

    def _reply(self, number: int, interrupt: Interrupt | None) -> Reply:
        while True:
            if interrupt:
                self._wait(interrupt)
            try:
                reply = self._channels.receive()
            except (OSError, msgspec.DecodeError) as error:
                raise self.died(f"it sent no reply: {error}") from error
            if reply is None:
                raise self.died()
            if reply.number == number:
                return reply

    def _wait(self, interrupt: Interrupt) -> None:
        """Wait for a reply, and end a process that does not look at the interrupt."""
        was_set = False
        grace_s = self._expected.grace_s
        while not self._channels.wait(grace_s):
            if was_set:
                raise self.died(f"{grace_s:g} s after a cancel or a timeout it still computed")
            was_set = interrupt.is_set


def _likely_cause(outcome: ChildOutcome) -> str:
    return "killed mostly for lack of memory" if outcome.return_code == -signal.SIGKILL else ""


def _end(channels: Channels, process: subprocess.Popen[bytes], owner: int) -> None:
    """End the process and close what led to it; a fork of the owner only closes its copies."""
    channels.close()
    if os.getpid() == owner:
        process.kill()
        process.wait()
    else:
        process.returncode = 0  # not its child: nothing to wait for, or to warn of
