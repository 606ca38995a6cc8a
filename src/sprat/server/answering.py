"""``Answering``: one request's answer by one model, within the server's limits, and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from typing import Any

from starlette.requests import Request

from sprat.arrays import F32Array
from sprat.runtime.async_engine import AsyncEngine
from sprat.runtime.chat.completions import ChatChunk, ChatCompletion
from sprat.runtime.generate.results import Summary
from sprat.server.errors import ApiError
from sprat.server.exchange import EventStream, unless_gone
from sprat.server.metrics import Metrics
from sprat.server.model_pool import ModelPool, ServedModel
from sprat.server.settings import ServerSettings

__all__ = ["Answering", "openai_reason", "streamed"]

_CUT = {"timeout": "length", "cancelled": "stop"}


def openai_reason(reason: str | None) -> str | None:
    """The finish reason as OpenAI's clients know it."""
    return _CUT.get(reason, reason) if reason else reason


class Answering:
    """The answer of one request.

    Args:
        request: the request.
        name: of the model that it asks for.

    Raises:
        ApiError: there is no such model.
    """

    def __init__(self, request: Request, name: str) -> None:
        state = request.app.state
        self._settings: ServerSettings = state.settings
        self._pool: ModelPool = state.pool
        self._metrics: Metrics = state.metrics
        self.model: ServedModel = self._pool.find(name)
        self._began, self._is_first = time.monotonic(), True

    async def completion(self, messages: Sequence[Mapping[str, Any]], options: dict[str, Any]) -> ChatCompletion:
        """The whole reply to a conversation."""
        async with self._pool.using(self.model) as engine:
            completion = await engine.chat(messages, **self.limited(options))
        completion["model"] = self.model.name
        for choice in completion["choices"]:
            self._metrics.answer(self.model.name, choice["finish_reason"])
            choice["finish_reason"] = str(openai_reason(choice["finish_reason"]))
        self._metrics.tokens(self.model.name, completion["timings"])
        return completion

    async def chunks(
        self, messages: Sequence[Mapping[str, Any]], options: dict[str, Any]
    ) -> AsyncGenerator[ChatChunk, None]:
        """The reply in chunks, of which the last has ``usage`` and ``timings``."""
        async with (
            self._pool.using(self.model) as engine,
            engine.stream_chat(messages, **self.limited(options)) as stream,
        ):
            timings: dict[str, Any] = {}
            async for chunk in stream:
                chunk["model"] = self.model.name
                self._count(chunk)
                timings = chunk.get("timings", timings)
                yield chunk
            self._metrics.tokens(self.model.name, timings)

    def _count(self, chunk: ChatChunk) -> None:
        """Count the first part of the answer and the end of each reply, whose reason becomes OpenAI's."""
        for choice in chunk["choices"]:
            if self._is_first and choice["delta"].keys() - {"role"} and any(choice["delta"].values()):
                self._is_first = False
                self._metrics.first_token(self.model.name, time.monotonic() - self._began)
            if reason := choice["finish_reason"]:
                self._metrics.answer(self.model.name, reason)
                choice["finish_reason"] = openai_reason(reason)

    async def embeddings(self, texts: Sequence[str | list[int]]) -> tuple[list[F32Array], int]:
        """The vector of each text, and the number of tokens of all.

        Raises:
            ApiError: it takes longer than the server's limit.
        """
        async with self._pool.using(self.model) as engine:
            try:
                async with asyncio.timeout(self._settings.timeout):
                    vectors = await engine.embed(texts)
            except TimeoutError:
                raise ApiError(
                    503,
                    f"it took over {self._settings.timeout:g} s, the server's limit; send fewer texts",
                    kind="server_error",
                ) from None
            n_tokens = sum(len(text if isinstance(text, list) else engine.engine.encode(text)) for text in texts)
        self._metrics.tokens(self.model.name, {"prompt_n": n_tokens, "cache_n": 0, "predicted_n": 0})
        return vectors, n_tokens

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[AsyncEngine]:
        """The model's engine."""
        async with self._pool.using(self.model) as engine:
            yield engine

    def limited(self, options: dict[str, Any]) -> dict[str, Any]:
        """``options`` within the limits of the server."""
        wanted, most = options.get("max_tokens"), self._settings.max_tokens
        limit = min(wanted or most, most) if most else wanted
        return {**options, **({"max_tokens": limit} if limit else {}), "timeout": self._settings.timeout}

    def ended(self, summary: Summary) -> None:
        """Count an answer that continues a prompt."""
        self._metrics.answer(self.model.name, str(summary.finish_reason))
        self._metrics.tokens(self.model.name, asdict(summary.timings))


async def streamed(request: Request, parts: AsyncGenerator[bytes, None], **options: Any) -> EventStream:
    """A response of ``parts``, once the first one is there: until then an error is a response of its own."""
    try:
        first = await unless_gone(request, anext(parts))
    except BaseException:
        await parts.aclose()
        raise

    async def all_parts() -> AsyncGenerator[bytes, None]:
        async with aclosing(parts):
            yield first
            async for part in parts:
                yield part

    return EventStream(all_parts(), **options)
