"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sprat.runtime.chat.completions import ChatChunk
from sprat.server.answering import Answering, streamed
from sprat.server.api.fields import (
    ChatMessage,
    Count,
    ReasoningEffort,
    Sampling,
    StreamOptions,
    given,
    plain_messages,
)
from sprat.server.exchange import body_of, event, unless_gone

__all__ = ["ChatRequest", "chat_completions"]


_PASSED_ON = (
    "chat_template_kwargs",
    "close_json",
    "logprobs",
    "n",
    "parallel_tool_calls",
    "response_format",
    "stop",
    "tool_choice",
    "tools",
    "top_logprobs",
)


class ChatRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """The body of a request."""

    messages: list[ChatMessage]
    model: str = ""
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: dict[str, Any] | None = None
    close_json: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: ReasoningEffort | None = None
    verbosity: str | None = None  # this and the next have no effect: they are hints to models of OpenAI
    prediction: dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None

    def options(self) -> dict[str, Any]:
        """The keywords of ``chat``."""
        limit = self.max_completion_tokens or self.max_tokens
        thinking = {"max_thinking_tokens": 0} if self.reasoning_effort == "none" else {}
        return {**thinking, **self.sampling(), **given(self, *_PASSED_ON), **({"max_tokens": limit} if limit else {})}


async def chat_completions(request: Request) -> Response:
    """Reply to a conversation, whole or in chunks."""
    body = await body_of(request, ChatRequest)
    answering, messages = Answering(request, body.model), plain_messages(body.messages)
    if body.stream:
        wants_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        chunks = answering.chunks(messages, body.options())
        return await streamed(request, _events(chunks, wants_usage=wants_usage))
    completion = await unless_gone(request, answering.completion(messages, body.options()))
    return JSONResponse(completion)


async def _events(chunks: AsyncGenerator[ChatChunk, None], *, wants_usage: bool) -> AsyncGenerator[bytes, None]:
    """The chunks as events. OpenAI sends the usage in a chunk of its own, and only to those who ask for it."""
    usage = None  # of n replies, each last chunk has the sum so far
    async with aclosing(chunks):
        async for chunk in chunks:
            usage = chunk.pop("usage", None) or usage
            yield event(chunk)
        if wants_usage:
            yield event({**chunk, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"
