"""``POST /v1/completions``: continue a prompt, without a chat template."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sprat.server.answering import Answering, openai_reason, streamed
from sprat.server.api.fields import Count, Sampling, StreamOptions, given, is_tokens
from sprat.server.errors import ApiError
from sprat.server.exchange import body_of, event, unless_gone

__all__ = ["CompletionRequest", "completions"]

_MAX_PROMPTS = 64
_DEFAULT_MAX_TOKENS = 16  # OpenAI's


class CompletionRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """The body of a request."""

    prompt: Any  # text, token ids, or a list of either: msgspec has no unions of arrays
    model: str = ""
    suffix: str | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    echo: bool | None = None
    stop: str | list[str] | None = None
    response_format: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def options(self) -> dict[str, Any]:
        """The keywords of ``generate``."""
        limit = {"max_tokens": self.max_tokens or _DEFAULT_MAX_TOKENS}
        return {**self.sampling(), **given(self, "suffix", "stop", "response_format"), **limit}

    def prompts(self) -> list[str | list[int]]:
        """The prompts, one for each choice.

        Raises:
            ApiError: the prompt is none that OpenAI's API has, or there are too many.
        """
        prompts = self.prompt if isinstance(self.prompt, list) and not is_tokens(self.prompt) else [self.prompt]
        if not all(isinstance(prompt, str) or is_tokens(prompt) for prompt in prompts):
            raise ApiError(400, "prompt: expected text, token ids, or a list of these", param="prompt")
        if not 1 <= len(prompts) <= (1 if self.stream else _MAX_PROMPTS):
            limit = "one, since the answer is streamed" if self.stream else f"1 to {_MAX_PROMPTS}"
            raise ApiError(400, f"prompt: {len(prompts)} prompts, expected {limit}", param="prompt")
        return prompts


async def completions(request: Request) -> Response:
    """Continue prompts, whole or piece by piece."""
    body = await body_of(request, CompletionRequest)
    if body.echo:
        raise ApiError(400, "echo is not supported; put the prompt before the answer yourself", param="echo")
    answering, prompts, answer_id = Answering(request, body.model), body.prompts(), f"cmpl-{secrets.token_hex(12)}"
    head = {"id": answer_id, "object": "text_completion", "created": int(time.time()), "model": answering.model.name}
    if body.stream:
        wants_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return await streamed(request, _events(answering, head, prompts[0], body.options(), wants_usage=wants_usage))
    return JSONResponse({**head, **await unless_gone(request, _choices(answering, prompts, body.options()))})


async def _choices(answering: Answering, prompts: Sequence[str | list[int]], options: dict[str, Any]) -> dict[str, Any]:
    """One choice for each prompt, and the tokens of all."""
    choices, usages = [], []
    async with answering.engine() as engine:
        for index, prompt in enumerate(prompts):
            async with engine.generate(prompt, **answering.limited(options)) as stream:
                text, summary = await stream.text(), await stream.summary()
            answering.ended(summary)
            usages.append(asdict(summary.usage))
            choices.append(_choice(index, text, str(summary.finish_reason)))
    return {"choices": choices, "usage": _sum(usages), "timings": asdict(summary.timings)}


def _sum(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The counts of all, details included."""
    counts = {name: [usage[name] for usage in usages] for name in usages[0]}
    return {name: _sum(each) if isinstance(each[0], dict) else sum(each) for name, each in counts.items()}


async def _events(
    answering: Answering, head: dict[str, Any], prompt: str | list[int], options: dict[str, Any], *, wants_usage: bool
) -> AsyncGenerator[bytes, None]:
    async with (
        answering.engine() as engine,
        engine.generate(prompt, **answering.limited(options)) as stream,
    ):
        async for piece in stream:
            yield event({**head, "choices": [_choice(0, piece.text)]})
        summary = await stream.summary()
    answering.ended(summary)
    last = {**head, "choices": [_choice(0, "", str(summary.finish_reason))], "timings": asdict(summary.timings)}
    yield event(last)
    if wants_usage:
        yield event({**head, "choices": [], "usage": asdict(summary.usage)})
    yield b"data: [DONE]\n\n"


def _choice(index: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": openai_reason(reason)}
