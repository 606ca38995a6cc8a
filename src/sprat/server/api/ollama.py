"""``/api/chat``, ``/api/tags``, ``/api/show`` and ``/api/version``: what Home Assistant's Ollama integration calls."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sprat.runtime.chat.completions import ChatChunk, Delta
from sprat.server.answering import Answering, streamed
from sprat.server.api.fields import ChatMessage, plain_messages
from sprat.server.errors import ApiError
from sprat.server.exchange import body_of, unless_gone
from sprat.server.model_pool import ModelPool, ServedModel

__all__ = ["OllamaChat", "OllamaShow", "chat", "show", "tags", "told_version"]

_LATEST = ":latest"  # what Ollama's clients add to a name without a tag
_PENALTIES = {"repeat_penalty", "presence_penalty", "frequency_penalty"}
_OPTIONS = {"temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "stop", *_PENALTIES}  # under the same names
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"-?(\d+(\.\d*)?(ms|s|m|h))+")  # as Go writes it, "1h30m"
_PART = re.compile(r"(?P<number>[\d.]+)(?P<unit>ms|s|m|h)")


class OllamaFunction(msgspec.Struct):
    """Function of a call, with its arguments."""

    name: str
    arguments: dict[str, Any] = {}


class OllamaCall(msgspec.Struct):
    """A call of a tool."""

    function: OllamaFunction


class OllamaMessage(msgspec.Struct):
    """A message of a conversation."""

    role: str
    content: str = ""
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None


class OllamaLimit(msgspec.Struct):
    """The option that limits an answer: below 1, nothing does."""

    num_predict: int = -1


class OllamaChat(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a chat. ``options`` has many that only llama.cpp knows; those are ignored, as Ollama does."""

    model: str
    messages: list[OllamaMessage] = []
    stream: bool = True
    options: dict[str, Any] | None = None
    keep_alive: float | str | None = None
    think: bool | str | None = None
    tools: list[dict[str, Any]] | None = None
    format: Any = None

    def chat_options(self) -> dict[str, Any]:
        """The keywords of ``chat``."""
        given = {name: value for name, value in (self.options or {}).items() if value is not None}
        options = {name: value for name, value in given.items() if name in _OPTIONS}
        if (limit := msgspec.convert(given, OllamaLimit).num_predict) >= 1:
            options["max_tokens"] = limit
        if self.think is not None:
            options["chat_template_kwargs"] = {"thinking": bool(self.think), "enable_thinking": bool(self.think)}
        if self.format not in (None, ""):
            options["response_format"] = _response_format(self.format)
        return {**options, **({"tools": self.tools} if self.tools else {})}

    def chat_messages(self) -> list[dict[str, Any]]:
        """The messages for a chat template.

        Raises:
            ApiError: there are images.
        """
        if any(message.images for message in self.messages):
            raise ApiError(400, "the model reads text only, and a message has images", param="messages")
        raw = [
            {"role": message.role, "content": message.content, "tool_calls": _openai_calls(message.tool_calls)}
            for message in self.messages
        ]
        return plain_messages(msgspec.convert(raw, list[ChatMessage]))


def _response_format(asked: object) -> dict[str, Any]:
    """Ollama's ``"json"``, or a JSON schema, as OpenAI's."""
    if asked == "json":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": asked}}


def _openai_calls(calls: list[OllamaCall] | None) -> list[dict[str, Any]] | None:
    """Tool calls of Ollama, which has no ids and arguments that are no text, as OpenAI's."""
    found = []
    for index, call in enumerate(calls or []):
        arguments = msgspec.json.encode(call.function.arguments).decode()
        function = {"name": call.function.name, "arguments": arguments}
        found.append({"id": f"call_{index}", "type": "function", "function": function})
    return found or None


class OllamaShow(msgspec.Struct):
    """The body of a question about a model."""

    model: str


async def chat(request: Request) -> Response:
    """Reply to a conversation, whole or line by line. Without a message, load or unload the model."""
    body = await body_of(request, OllamaChat)
    answering = Answering(request, body.model.removesuffix(_LATEST))
    if body.keep_alive is not None:
        answering.model.keep_alive = _seconds(body.keep_alive)
    if not body.messages:
        return JSONResponse(await _load(request, answering.model))
    chunks = answering.chunks(body.chat_messages(), body.chat_options())
    if body.stream:
        return await streamed(request, _lines(chunks, body.model), media_type="application/x-ndjson", is_event=False)
    return JSONResponse(await unless_gone(request, _whole(chunks, body.model)))


async def _load(request: Request, model: ServedModel) -> dict[str, Any]:
    pool: ModelPool = request.app.state.pool
    async with pool.using(model):
        pass
    return {**_head(model.name), "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "load"}


async def _lines(chunks: AsyncGenerator[ChatChunk, None], model: str) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield msgspec.json.encode(_line(chunk, model)) + b"\n"


async def _whole(chunks: AsyncGenerator[ChatChunk, None], model: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"content": "", "thinking": "", "tool_calls": []}
    message = empty.copy()
    async with aclosing(chunks):
        async for chunk in chunks:
            line = _line(chunk, model)
            for name, nothing in empty.items():
                message[name] = message[name] + line["message"].get(name, nothing)
    told = {name: value for name, value in message.items() if value or name == "content"}
    return {**line, "message": {"role": "assistant", **told}}


def _line(chunk: ChatChunk, model: str) -> dict[str, Any]:
    (choice,) = chunk["choices"]
    line = {**_head(model), "message": _message(choice["delta"]), "done": choice["finish_reason"] is not None}
    if choice["finish_reason"] is None:
        return line
    timings = chunk["timings"]
    prompt_ns, answer_ns = int(1e6 * timings["prompt_ms"]), int(1e6 * timings["predicted_ms"])
    return {
        **line,
        "done_reason": choice["finish_reason"],
        "total_duration": prompt_ns + answer_ns,
        "load_duration": 0,
        "prompt_eval_count": chunk["usage"]["prompt_tokens"],
        "prompt_eval_duration": prompt_ns,
        "eval_count": chunk["usage"]["completion_tokens"],
        "eval_duration": answer_ns,
    }


def _message(delta: Delta) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": delta.get("content", "")}
    if "reasoning_content" in delta:
        message["thinking"] = delta["reasoning_content"]
    if "tool_calls" in delta:
        functions = [call["function"] for call in delta["tool_calls"]]
        message["tool_calls"] = [
            {"function": {"name": function["name"], "arguments": msgspec.json.decode(function["arguments"])}}
            for function in functions
        ]
    return message


def _head(model: str) -> dict[str, Any]:
    return {"model": model, "created_at": datetime.now(UTC).isoformat()}


def _seconds(keep_alive: float | str) -> float | None:
    """Seconds of ``300``, ``"300"``, ``"1h30m"``; ``None`` for a negative value, which is for ever.

    Raises:
        ApiError: it is no duration.
    """
    text = str(keep_alive)
    if _DURATION.fullmatch(text):
        seconds = sum(float(part["number"]) * _UNITS[part["unit"]] for part in _PART.finditer(text))
        return None if text.startswith("-") else seconds
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ApiError(400, f"keep_alive is {keep_alive!r}, expected seconds or text such as '5m' or '1h30m'")
    return seconds if seconds >= 0 else None


async def tags(request: Request) -> Response:
    """All models, as ``ollama list`` shows them."""
    pool: ModelPool = request.app.state.pool
    return JSONResponse({"models": [_tag(model) for model in pool.models.values()]})


def _tag(model: ServedModel) -> dict[str, Any]:
    files = [model.path] if model.path.is_file() else [path for path in model.path.rglob("*") if path.is_file()]
    return {
        "name": model.name + _LATEST,
        "model": model.name + _LATEST,
        "modified_at": datetime.fromtimestamp(model.path.stat().st_mtime, UTC).isoformat(),
        "size": sum(path.stat().st_size for path in files),
        "digest": "",
        "details": {"format": "gguf", "family": "", "families": [], "parameter_size": "", "quantization_level": ""},
    }


async def show(request: Request) -> Response:
    """Details and capabilities of a model."""
    body = await body_of(request, OllamaShow)
    pool: ModelPool = request.app.state.pool
    details = _tag(pool.find(body.model.removesuffix(_LATEST)))["details"]
    return JSONResponse({"details": details, "model_info": {}, "capabilities": ["completion", "tools"], "template": ""})


async def told_version(_request: Request) -> Response:
    """The version of sprat."""
    return JSONResponse({"version": version("sprat")})
