"""``AsyncSession``: a conversation for asyncio that keeps its KV cache between turns."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, Unpack

from sprat.errors import SessionBusyError
from sprat.runtime.async_engine.stream import AsyncChatStream, Job
from sprat.runtime.async_engine.workers import Workers
from sprat.runtime.chat.completions import ChatCompletion, ChatStream, Message
from sprat.runtime.chat.prompt import ChatOptions
from sprat.runtime.pass_queue import PassQueue
from sprat.runtime.session import Session

__all__ = ["AsyncSession"]


class AsyncSession:
    """One conversation; create it with :meth:`sprat.runtime.async_engine.engine.AsyncEngine.session`.

    One answer at a time; a second one while the first is generated is a :class:`~sprat.errors.SessionBusyError`.

    Args:
        session: the conversation, closed with this one.
        workers: generate its answers.
        passes: in which its forward passes take turns.
    """

    def __init__(self, session: Session, workers: Workers, passes: PassQueue) -> None:
        self._session, self._workers, self._passes = session, workers, passes
        self._job: Job[ChatStream] | None = None

    @property
    def messages(self) -> list[Message]:
        """The conversation so far. It may be edited between two turns."""
        return self._session.messages

    def stream_chat(self, text: str, *, priority: int = 0, **options: Unpack[ChatOptions]) -> AsyncChatStream:
        """Add ``text`` as a user message and stream the reply; see :meth:`Session.stream_chat`.

        Raises:
            SessionBusyError: the last answer has not ended.
            QueueFullError: too many answers wait already.
            BackendError: the engine was closed.
        """
        return AsyncChatStream(self._begin(text, priority, options, in_parts=True), self._workers)

    async def chat(self, text: str, *, priority: int = 0, **options: Unpack[ChatOptions]) -> ChatCompletion:
        """Add ``text`` as a user message and return the whole reply; cancelling the task ends the answer."""
        job = self._begin(text, priority, options, in_parts=False)
        return await AsyncChatStream(job, self._workers).completion()

    def _begin(self, text: str, priority: int, options: ChatOptions, *, in_parts: bool) -> Job[ChatStream]:
        if self._job is not None and not self._job.has_ended:
            raise SessionBusyError(
                "the session's last answer has not ended; wait for it, cancel it, or use one session per conversation"
            )
        job = Job(lambda: self._session.stream_chat(text, **options), self._passes, priority, in_parts=in_parts)
        self._workers.submit(job)
        self._job = job
        return job

    async def close(self) -> None:
        """End a running answer, and free the cache."""
        if self._job is not None:
            self._workers.cancel(self._job)
            await asyncio.to_thread(self._job.wait)
        await asyncio.to_thread(self._session.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
