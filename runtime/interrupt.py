"""``Interrupt``: ends a forward pass before it is done, by a cancel from any thread or at a deadline.

An interrupt applies to the passes that a thread runs inside a ``with`` block. The native kernels look at it before
every piece of work, which takes about a millisecond; the reference between matrices; onnxruntime and llama.cpp between
nodes of their graphs. A pass that is interrupted leaves the cache as it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from sprat.native import core

__all__ = ["Interrupt", "InterruptError", "check_interrupt", "current_interrupt"]


class InterruptError(Exception):
    """The pass was interrupted; the ``with`` block of its :class:`Interrupt` catches it."""


class _Current(threading.local):
    """The interrupt of each thread."""

    interrupt: Interrupt | None = None


_current = _Current()
_NATIVE_ERRORS: tuple[type[BaseException], ...] = () if core is None else (core.InterruptError,)


class Interrupt:
    """Ends the passes of its ``with`` blocks early; the block then ends without an error, and ``is_set`` is true.

    Args:
        deadline: on the clock of ``time.monotonic``; ``None`` for none.

    Attributes:
        native: its twin in the native core, if there is one.

    Example:
        >>> interrupt = Interrupt()
        >>> interrupt.cancel()
        >>> with interrupt:
        ...     check_interrupt()
        ...     print("never printed")
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self._cancelled = threading.Event()
        self._lock = threading.RLock()  # a signal handler may cancel what its own thread is about to watch
        self._stops: list[Callable[[], None]] = []
        self.native = _native_interrupt(deadline)
        self._before: Interrupt | None = None

    def cancel(self) -> None:
        """End the pass that runs now, and every later one; may be called from any thread."""
        self._cancelled.set()
        if self.native is not None:
            self.native.cancel()
        self._stop()

    @property
    def is_cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancelled.is_set()

    @property
    def is_set(self) -> bool:
        """Whether the pass was cancelled, or its deadline has passed."""
        return self._cancelled.is_set() or (self.deadline is not None and time.monotonic() >= self.deadline)

    @contextmanager
    def watch(self, stop: Callable[[], None]) -> Iterator[None]:
        """Inside the block, call ``stop`` from another thread once the interrupt is set; for other libraries."""
        timer = None
        if self.deadline is not None:
            timer = threading.Timer(max(0.0, self.deadline - time.monotonic()), self._stop)
            timer.daemon = True
            timer.start()
        try:
            with self.watch_cancel(stop):
                yield
        finally:
            if timer is not None:
                timer.cancel()

    @contextmanager
    def watch_cancel(self, stop: Callable[[], None]) -> Iterator[None]:
        """Like :meth:`watch`, for callees that check the deadline themselves: no timer, which would take a thread."""
        with self._lock:
            self._stops.append(stop)
        try:
            if self.is_set:
                stop()
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)

    def _stop(self) -> None:
        with self._lock:
            for stop in tuple(self._stops):
                stop()

    def __enter__(self) -> Self:
        self._before, _current.interrupt = _current.interrupt, self
        _set_native(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        _current.interrupt, self._before = self._before, None
        _set_native(_current.interrupt)
        return self.is_set and kind is not None and issubclass(kind, (InterruptError, *_NATIVE_ERRORS))


def current_interrupt() -> Interrupt | None:
    """The interrupt of the passes that this thread runs, if there is one."""
    return _current.interrupt


def check_interrupt() -> None:
    """End the pass if it is interrupted.

    Raises:
        InterruptError: the current interrupt is set.
    """
    interrupt = _current.interrupt
    if interrupt is not None and interrupt.is_set:
        raise InterruptError("the forward pass was interrupted")


def _native_interrupt(deadline: float | None) -> Any:
    """The native core's twin of an interrupt, which its kernels can look at without the GIL."""
    if core is None:
        return None
    native = core.Interrupt()
    if deadline is not None:
        native.set_deadline(deadline)
    return native


def _set_native(interrupt: Interrupt | None) -> None:
    if core is not None:
        core.set_interrupt(interrupt.native if interrupt is not None else None)
