"""``Workers``: the threads that generate answers, and the queue of those that wait for one."""

from __future__ import annotations

import heapq
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sprat.errors import BackendError, QueueFullError, SpratError

__all__ = ["Work", "Workers"]


class Work(Protocol):
    """A job of a worker."""

    priority: int

    def run(self) -> None:
        """Run to the end; called once, in a worker's thread."""

    def cancel(self) -> None:
        """End soon, also before the start; from any thread."""

    def end(self, error: BaseException | None = None) -> None:
        """Called once no thread works on it any more; with an error if none ever did."""


class Workers:
    """At most ``parallel`` works at a time; others wait, the highest priority first. From any thread.

    Args:
        parallel: number of threads.
        queue: works that may wait.
    """

    def __init__(self, parallel: int, queue: int) -> None:
        self.parallel, self.queue = parallel, queue
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="sprat-answer")
        self._lock = threading.Lock()
        self._running: set[Work] = set()
        self._waiting: list[tuple[tuple[int, int], Work]] = []  # a heap
        self._numbers = itertools.count()
        self._is_closed = False

    @property
    def n_running(self) -> int:
        """Works that run."""
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        """Works that wait for a thread."""
        return len(self._waiting)

    def submit(self, work: Work) -> None:
        """Start ``work``, or let it wait.

        Raises:
            QueueFullError: too many wait already.
            BackendError: the workers were closed.
        """
        with self._lock:
            if self._is_closed:
                raise BackendError("the engine was closed; load the model again")
            if len(self._running) < self.parallel:
                self._start(work)
            elif len(self._waiting) >= self.queue:
                raise QueueFullError(
                    f"{len(self._running)} answers are being generated and {len(self._waiting)} wait, as many as the "
                    "queue holds; try again later, or allow more with queue= or parallel="
                )
            else:
                heapq.heappush(self._waiting, ((-work.priority, next(self._numbers)), work))

    def cancel(self, work: Work) -> None:
        """End ``work`` soon, or at once if it waits."""
        work.cancel()
        with self._lock:
            left = [entry for entry in self._waiting if entry[1] is not work]
            was_waiting = len(left) < len(self._waiting)
            heapq.heapify(left)
            self._waiting = left
        if was_waiting:
            work.end(SpratError("the answer was cancelled before it began: it waited for a free thread"))

    def close(self) -> None:
        """Cancel all works and wait for their threads; once more does nothing."""
        with self._lock:
            self._is_closed = True
            works = [*self._running, *(work for _, work in self._waiting)]
        for work in works:
            self.cancel(work)
        self._threads.shutdown()

    def _start(self, work: Work) -> None:
        self._running.add(work)
        self._threads.submit(self._run, work)

    def _run(self, work: Work) -> None:
        try:
            work.run()
        finally:
            with self._lock:
                self._running.discard(work)
                if self._waiting and not self._is_closed:
                    self._start(heapq.heappop(self._waiting)[1])
            work.end()
