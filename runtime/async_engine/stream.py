"""``AsyncStream``: an answer that a worker's thread generates, as an asynchronous iterator of its parts."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from sprat.runtime.async_engine.workers import Workers
from sprat.runtime.chat.completions import ChatChunk, ChatCompletion, ChatStream
from sprat.runtime.generate.generation import Generation
from sprat.runtime.generate.results import Piece, Summary
from sprat.runtime.pass_queue import PassQueue

__all__ = ["Answer", "AsyncChatStream", "AsyncGeneration", "AsyncStream", "Job"]

Part = TypeVar("Part")
Part_co = TypeVar("Part_co", covariant=True)
AnswerOf = TypeVar("AnswerOf", bound="Answer[Any]")


class Answer(Protocol[Part_co]):
    """A :class:`Generation` or a :class:`ChatStream`."""

    def __next__(self) -> Part_co:
        """The next part."""

    def cancel(self) -> None:
        """End the answer; from any thread."""


class _End:
    """The end of an answer, and why it failed, if it did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Job(Generic[AnswerOf]):
    """One answer: a worker's thread generates it, an event loop takes its parts.

    Args:
        start: begins the answer; called in the worker's thread.
        passes: in which its forward passes take turns.
        priority: higher goes first.
        in_parts: post every part; otherwise the end alone, which wakes the event loop once.
    """

    def __init__(
        self, start: Callable[[], AnswerOf], passes: PassQueue, priority: int, *, in_parts: bool = True
    ) -> None:
        self.priority = priority
        self._in_parts = in_parts
        self.answer: AnswerOf | None = None
        self.parts: asyncio.Queue[Any] = asyncio.Queue()
        self._start, self._passes = start, passes
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._posted: deque[object] = deque()  # and not in ``parts`` yet
        self._is_waking = False
        self._is_cancelled = False
        self._error: BaseException | None = None
        self._ended = threading.Event()

    @property
    def has_ended(self) -> bool:
        """Whether no thread works on the answer any more, or will."""
        return self._ended.is_set()

    def wait(self) -> None:
        """Wait until it has ended; not from the event loop."""
        self._ended.wait()

    def run(self) -> None:
        """Generate the answer to its end, from a worker's thread."""
        try:
            with self._passes.turns(self.priority):
                self._generate()
        except BaseException as error:  # noqa: BLE001  # it is raised where the parts are taken
            self._error = error

    def end(self, error: BaseException | None = None) -> None:
        """Post the end: the answer's, or ``error``, if it never began."""
        self._ended.set()
        self._post(_End(error or self._error))

    def cancel(self) -> None:
        """End the answer in the middle of its pass, or before it begins; from any thread."""
        with self._lock:
            self._is_cancelled = True
            if self.answer is not None:
                self.answer.cancel()

    def cancel_soon(self) -> None:
        """Cancel from the event loop; for finalizers, which may interrupt code that holds a lock."""
        self._is_cancelled = True
        with suppress(RuntimeError):  # the loop is closed, and the worker finds that out
            self._loop.call_soon_threadsafe(self.cancel)

    def _generate(self) -> None:
        answer = self._start()
        with self._lock:
            self.answer = answer
            if self._is_cancelled:
                answer.cancel()
        while True:
            try:
                part = next(answer)
            except StopIteration:
                return
            if self._in_parts:
                self._post(part)

    def _post(self, part: object) -> None:
        """Wake the event loop, unless it is waking already: a fast model has several parts ready by then."""
        with self._lock:
            self._posted.append(part)
            if self._is_waking:
                return
            self._is_waking = True
        try:
            self._loop.call_soon_threadsafe(self._take)
        except RuntimeError:  # the loop is closed: nobody takes the parts
            self.cancel()

    def _take(self) -> None:
        with self._lock:
            self._is_waking = False
            parts = list(self._posted)
            self._posted.clear()
        for part in parts:
            self.parts.put_nowait(part)


class AsyncStream(AsyncIterator[Part], Generic[Part, AnswerOf]):
    """The parts of one answer, as they are generated; iterate over it with ``async for``.

    A task that is cancelled while it waits for a part cancels the answer, and so does leaving an ``async with`` block.
    An answer that nobody refers to any more is cancelled as well.

    Args:
        job: the answer.
        workers: that run it.
    """

    def __init__(self, job: Job[AnswerOf], workers: Workers) -> None:
        self._job, self._workers = job, workers
        self._has_ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Part:
        if self._has_ended:
            raise StopAsyncIteration
        try:
            part = await self._job.parts.get()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if not isinstance(part, _End):
            return part  # type: ignore[no-any-return]  # the queue holds parts of the answer, and one end
        self._has_ended = True
        if part.error is not None:
            raise part.error
        raise StopAsyncIteration

    def cancel(self) -> None:
        """End the answer in the middle of its forward pass; what was generated can still be iterated over."""
        self._workers.cancel(self._job)

    async def aclose(self) -> None:
        """Cancel the answer, and wait for its end; how it ended is not raised any more."""
        self.cancel()
        while not self._has_ended:
            self._has_ended = isinstance(await self._job.parts.get(), _End)

    async def _ended(self) -> AnswerOf:
        """The answer, once it has ended."""
        async for _ in self:
            pass
        assert self._job.answer is not None, "an answer that ended without an error had begun"
        return self._job.answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._has_ended:
            self._job.cancel_soon()


class AsyncGeneration(AsyncStream[Piece, Generation]):
    """The pieces of an answer; see :class:`~sprat.runtime.generate.generation.Generation`."""

    async def text(self) -> str:
        """Generate the rest, and return the text of the whole answer."""
        return (await self._ended()).text()

    async def summary(self) -> Summary:
        """Generate the rest, and return finish reason, token counts and timings."""
        return (await self._ended()).summary


class AsyncChatStream(AsyncStream[ChatChunk, ChatStream]):
    """The chunks of a reply; see :class:`~sprat.runtime.chat.completions.ChatStream`."""

    async def completion(self) -> ChatCompletion:
        """Generate the rest, and return the whole reply."""
        return (await self._ended()).completion()
