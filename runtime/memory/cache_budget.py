"""``CacheBudget``: the memory that the KV caches of all streams of an engine share under a hard limit."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import TypeVar

import msgspec

from sprat.devices.plan.footprint import Footprint
from sprat.errors import DoesNotFitError
from sprat.locks import ForkSafeLock
from sprat.text import human_bytes

__all__ = ["CacheBudget", "StreamCost"]

_Stream = TypeVar("_Stream")


class StreamCost(msgspec.Struct, frozen=True):
    """Bytes of a stream: its KV entries, and what a backend allocates per stream beside them."""

    bytes_per_token: int
    fixed_bytes: int = 0

    def nbytes(self, capacity: int) -> int:
        """Bytes of a stream of ``capacity`` tokens."""
        return self.fixed_bytes + capacity * self.bytes_per_token


class CacheBudget:
    """Counts the streams of an engine, and refuses one that exceeds the limit; may be used from several threads.

    Args:
        limit_bytes: for all streams together; ``None`` for no limit.
        cost: what a stream takes.
        beside_bytes: what the model takes without any stream; 0 if that is not known.

    Attributes:
        cost: what a stream takes.
        lock: held while the counts change.
        make_room: called with the bytes that a new stream lacks; it may give back what can be computed again.
    """

    def __init__(self, limit_bytes: int | None = None, cost: StreamCost | None = None, beside_bytes: int = 0) -> None:
        self._limit_bytes = limit_bytes
        self._beside_bytes = beside_bytes
        self.cost = cost or StreamCost(0)
        self.make_room: Callable[[int], object] = lambda _n_bytes: None
        self._used_bytes = self._n_streams = 0
        self.lock = ForkSafeLock()  # reentrant: a garbage collection inside the lock may give a stream back

    @classmethod
    def of(cls, footprint: Footprint, memory_bytes: int | None, stream_bytes: int = 0) -> CacheBudget:
        """``memory_bytes`` less the weights and buffers of ``footprint``; ``stream_bytes`` as in StreamCost.

        The buffers of the footprint include those of one stream.
        """
        cost = StreamCost(footprint.cache_bytes_per_token, stream_bytes)
        beside = footprint.total_bytes - footprint.cache_bytes - stream_bytes
        return cls(None if memory_bytes is None else memory_bytes - beside, cost, beside)

    def needed_bytes(self, n_streams: int, capacity: int) -> int:
        """Bytes of the model with ``n_streams`` streams of ``capacity`` tokens; 0 if that is not known."""
        return self._beside_bytes and self._beside_bytes + n_streams * self.cost.nbytes(capacity)

    def new_stream(self, new: Callable[[int], _Stream], capacity: int) -> tuple[_Stream, Callable[[], object]]:
        """``new(capacity)``, a stream of so many tokens, and the function that gives its memory back once it is closed.

        A stream that is never closed gives it back when it is collected.

        Raises:
            DoesNotFitError: the streams that are open leave too little, and the message says how many tokens fit; or
                the system has too little.
        """
        n_bytes = self.cost.nbytes(capacity)
        self._reserve(n_bytes, capacity)
        try:
            stream = new(capacity)
        except BaseException as error:
            self._give_back(n_bytes)
            if isinstance(error, MemoryError):
                raise DoesNotFitError(
                    f"a KV cache for {capacity:,} tokens needs {human_bytes(n_bytes)}, which this system does not "
                    "give; use fewer tokens (context=)"
                ) from error
            raise
        give_back = weakref.finalize(stream, self._give_back, n_bytes)
        give_back.atexit = False
        return stream, give_back

    def _reserve(self, n_bytes: int, capacity: int) -> None:
        with self.lock:
            if (missing := self._missing(n_bytes)) > 0:
                self.make_room(missing)
            if not self.take(n_bytes):
                raise self._refusal(n_bytes, capacity)
            self._n_streams += 1

    def _missing(self, n_bytes: int) -> int:
        """Bytes above the limit if ``n_bytes`` more were allocated; negative below it."""
        return 0 if self._limit_bytes is None else self._used_bytes + n_bytes - self._limit_bytes

    @property
    def free_bytes(self) -> float:
        """Bytes that are left; infinite without a limit."""
        return -self._missing(0) if self._limit_bytes is not None else math.inf

    def take(self, n_bytes: int) -> bool:
        """Count ``n_bytes`` as used; false if the limit leaves too little."""
        with self.lock:
            if self._missing(n_bytes) > 0:
                return False
            self._used_bytes += n_bytes
            return True

    def give_back(self, n_bytes: int) -> None:
        """Count ``n_bytes`` that were taken as free."""
        with self.lock:
            self._used_bytes -= n_bytes

    def _give_back(self, n_bytes: int) -> None:
        with self.lock:
            self.give_back(n_bytes)
            self._n_streams -= 1

    def _refusal(self, n_bytes: int, capacity: int) -> DoesNotFitError:
        assert self._limit_bytes is not None, "nothing is refused without a limit"
        free = self._limit_bytes - self._used_bytes
        fitting = max(0, free - self.cost.fixed_bytes) // max(1, self.cost.bytes_per_token)
        remedy = f"use at most {fitting:,} tokens (context=), " if fitting else ""
        close = f"close one of the {self._n_streams} that are open, " if self._n_streams else ""
        return DoesNotFitError(
            f"a KV cache for {capacity:,} tokens needs {human_bytes(n_bytes)}, {n_bytes - free:,} bytes more than is "
            f"left: open sessions and answers hold {human_bytes(self._used_bytes)} of the "
            f"{human_bytes(self._limit_bytes)} that the memory limit leaves for caches; {remedy}{close}"
            "or allow more memory"
        )
