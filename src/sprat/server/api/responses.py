"""``POST /v1/responses``: OpenAI's newer API, over the same chat; nothing is stored."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
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
    TextPart,
    given,
    plain_messages,
    text_of,
)
from sprat.server.api.response_events import ResponseEvents
from sprat.server.errors import ApiError
from sprat.server.exchange import body_of, unless_gone

__all__ = ["ResponsesRequest", "responses"]

_LOGPROBS = "message.output_text.logprobs"


class InputItem(msgspec.Struct, forbid_unknown_fields=True):
    """A message of the conversation, or what an earlier response held."""

    type: Literal["message", "reasoning", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: str | list[TextPart] | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None
    summary: list[Any] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[TextPart] | None = None

    def message(self) -> ChatMessage:
        """The item as a message of a chat."""
        if self.type == "function_call":
            function = {"name": self.name or "", "arguments": self.arguments or "{}"}
            call = {"id": self.call_id or "", "type": "function", "function": function}
            return ChatMessage("assistant", None, tool_calls=[call])
        if self.type == "function_call_output":
            return ChatMessage("tool", text_of(self.output) or "", tool_call_id=self.call_id)
        return ChatMessage(self.role, text_of(self.content))


class TextOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Format of the answer."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct):
    """Options for OpenAI's reasoning models, of which one has an effect: an effort of ``none`` ends reasoning."""

    effort: ReasoningEffort | None = None


class ResponsesRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """The body of a request."""

    input: str | list[InputItem]
    model: str = ""
    instructions: str | None = None
    max_output_tokens: Count | None = None
    previous_response_id: str | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    text: TextOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    max_tool_calls: int | None = None  # no effect: it counts calls of OpenAI's own tools
    stream_options: StreamOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def messages(self) -> list[ChatMessage]:
        """The conversation. Reasoning of earlier answers is left out, as templates of reasoning models do."""
        items = [InputItem(content=self.input)] if isinstance(self.input, str) else self.input
        found = [ChatMessage("system", self.instructions)] if self.instructions else []
        for message in (item.message() for item in items if item.type != "reasoning"):
            if message.tool_calls and found and found[-1].role == "assistant":  # one turn, whose items came one by one
                found[-1].tool_calls = [*(found[-1].tool_calls or []), *message.tool_calls]
            else:
                found.append(message)
        return found

    def options(self) -> dict[str, Any]:
        """The keywords of ``chat``."""
        options = {**self.sampling(), **given(self, "tool_choice", "parallel_tool_calls", "top_logprobs")}
        if self.top_logprobs or _LOGPROBS in (self.include or ()):
            options["logprobs"] = True
        if self.reasoning and self.reasoning.effort == "none":
            options["max_thinking_tokens"] = 0
        if self.max_output_tokens:
            options["max_tokens"] = self.max_output_tokens
        if self.text and self.text.format:
            options["response_format"] = self.text.format
        if self.tools:
            options["tools"] = [_function(tool) for tool in self.tools]
        return options

    def check(self) -> None:
        """Refuse what would change the answer and is not there.

        Raises:
            ApiError: the request needs stored responses.
        """
        for name in ("previous_response_id", "background", "conversation", "prompt"):
            if getattr(self, name):
                what = "prompts" if name == "prompt" else "responses"
                raise ApiError(400, f"{name}: this server stores no {what}; send the whole input", param=name)


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool of this API, whose function's fields stand beside its type, as one of a chat.

    Raises:
        ApiError: it is a tool of OpenAI's own service.
    """
    if tool.get("type") != "function":
        raise ApiError(400, f"tools: {tool.get('type')!r} is not offered here, expected functions", param="tools")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


async def responses(request: Request) -> Response:
    """Reply to a conversation, whole or in events."""
    body = await body_of(request, ResponsesRequest)
    body.check()
    answering = Answering(request, body.model)
    chunks = answering.chunks(plain_messages(body.messages()), body.options())
    record = _record(body, answering.model.name)
    if body.stream:
        return await streamed(request, _events(chunks, ResponseEvents(record)))
    return JSONResponse(await unless_gone(request, _whole(chunks, ResponseEvents(record))))


def _record(body: ResponsesRequest, model: str) -> dict[str, Any]:
    """The response before anything of it is there."""
    return {
        "id": f"resp_{secrets.token_hex(16)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "model": model,
        "output": [],
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "tool_choice": body.tool_choice or "auto",
        "tools": body.tools or [],
        "error": None,
        "incomplete_details": None,
        "previous_response_id": None,
        "store": False,
        "usage": None,
    }


async def _events(chunks: AsyncGenerator[ChatChunk, None], events: ResponseEvents) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        for told in events.begin():
            yield told
        async for chunk in chunks:
            for told in _of(chunk, events):
                yield told


async def _whole(chunks: AsyncGenerator[ChatChunk, None], events: ResponseEvents) -> dict[str, Any]:
    async with aclosing(chunks):
        async for chunk in chunks:
            for _ in _of(chunk, events):
                pass
    return events.response


def _of(chunk: ChatChunk, events: ResponseEvents) -> Iterator[bytes]:
    """The events of one chunk of a chat."""
    for choice in chunk["choices"]:
        delta, logprobs = choice["delta"], choice.get("logprobs")
        yield from events.text("reasoning", delta.get("reasoning_content", ""))
        yield from events.text("message", delta.get("content", ""), logprobs["content"] if logprobs else [])
        for call in delta.get("tool_calls", []):
            yield from events.call(call)
        if reason := choice["finish_reason"]:
            yield from events.end(reason, chunk["usage"], chunk["timings"])
