"""``POST /v1/responses``: OpenAI's newer API, over the same chat; nothing is stored."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sprat.runtime.chat.completions import ChatChunk
from sprat.server.answering import Answering, streamed
from sprat.server.api.fields import ChatMessage, Count, Sampling, TextPart, given, plain_messages, text_of
from sprat.server.api.response_events import ResponseEvents
from sprat.server.errors import ApiError
from sprat.server.exchange import body_of, unless_gone

__all__ = ["ResponsesRequest", "responses"]


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
    """Options for OpenAI's reasoning models; a model here reasons as it was trained to."""


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
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def messages(self) -> list[ChatMessage]:
        """The conversation. Reasoning of earlier answers is left out, as templates of reasoning models do."""
        items = [InputItem(content=self.input)] if isinstance(self.input, str) else self.input
        found = [item.message() for item in items if item.type != "reasoning"]
        return [*([ChatMessage("system", self.instructions)] if self.instructions else []), *found]

    def options(self) -> dict[str, Any]:
        """The keywords of ``chat``."""
        options = {**self.sampling(), **given(self, "tool_choice", "parallel_tool_calls")}
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
        for name in ("previous_response_id", "background"):
            if getattr(self, name):
                raise ApiError(400, f"{name}: this server stores no responses; send the whole input", param=name)


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
        delta = choice["delta"]
        yield from events.text("reasoning", delta.get("reasoning_content", ""))
        yield from events.text("message", delta.get("content", ""))
        for call in delta.get("tool_calls", []):
            yield from events.call(call)
        if reason := choice["finish_reason"]:
            yield from events.end(reason, chunk["usage"], chunk["timings"])
