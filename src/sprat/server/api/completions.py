"""``POST /v1/completions``: continue a prompt, without a chat template."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sprat.runtime.async_engine import AsyncEngine
from sprat.runtime.generate.results import Piece
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
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    best_of: int | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    stop: str | list[str] | None = None
    response_format: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def options(self, reply: int = 0) -> dict[str, Any]:
        """The keywords of ``generate``, for one of the ``n`` replies to a prompt."""
        options = {**self.sampling(), **given(self, "suffix", "stop", "response_format")}
        options |= {"max_tokens": self.max_tokens or _DEFAULT_MAX_TOKENS, "top_logprobs": self.logprobs or 0}
        return options if self.seed is None else {**options, "seed": options["seed"] + reply}

    def check(self) -> None:
        """Refuse what is not there.

        Raises:
            ApiError: the request wants the prompt back, or a choice among answers.
        """
        if self.echo:
            raise ApiError(400, "echo is not supported; put the prompt before the answer yourself", param="echo")
        if self.best_of not in (None, self.n or 1):
            raise ApiError(400, f"best_of is {self.best_of}, expected n: every answer is returned", param="best_of")

    def prompts(self) -> list[str | list[int]]:
        """The prompts, each of which has ``n`` choices.

        Raises:
            ApiError: the prompt is none that OpenAI's API has, or there are too many.
        """
        prompts = self.prompt if isinstance(self.prompt, list) and not is_tokens(self.prompt) else [self.prompt]
        if not all(isinstance(prompt, str) or is_tokens(prompt) for prompt in prompts):
            raise ApiError(400, "prompt: expected text, token ids, or a list of these", param="prompt")
        if not 1 <= len(prompts) <= _MAX_PROMPTS:
            raise ApiError(400, f"prompt: {len(prompts)} prompts, expected 1 to {_MAX_PROMPTS}", param="prompt")
        return prompts


async def completions(request: Request) -> Response:
    """Continue prompts, whole or piece by piece."""
    body = await body_of(request, CompletionRequest)
    body.check()
    answering, prompts, answer_id = Answering(request, body.model), body.prompts(), f"cmpl-{secrets.token_hex(12)}"
    head = {"id": answer_id, "object": "text_completion", "created": int(time.time()), "model": answering.model.name}
    if body.stream:
        return await streamed(request, _events(answering, head, body, prompts))
    return JSONResponse({**head, **await unless_gone(request, _choices(answering, body, prompts))})


async def _choices(answering: Answering, body: CompletionRequest, prompts: Sequence[str | list[int]]) -> dict[str, Any]:
    """The choices of each prompt, and the tokens of all."""
    choices, usages = [], []
    async with answering.engine() as engine:
        for index, (prompt, reply) in enumerate(itertools.product(prompts, range(body.n or 1))):
            logprobs = _Logprobs(engine)
            async with engine.generate(prompt, **answering.limited(body.options(reply))) as stream:
                async for piece in stream:
                    logprobs.add(piece)
                text, summary = await stream.text(), await stream.summary()
            answering.ended(summary)
            usages.append(asdict(summary.usage))
            found = None if body.logprobs is None else logprobs.all
            choices.append(_choice(index, text, str(summary.finish_reason), found))
    return {"choices": choices, "usage": _sum(usages), "timings": asdict(summary.timings)}


def _sum(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The counts of all, details included."""
    counts = {name: [usage[name] for usage in usages] for name in usages[0]}
    return {name: _sum(each) if isinstance(each[0], dict) else sum(each) for name, each in counts.items()}


async def _events(
    answering: Answering, head: dict[str, Any], body: CompletionRequest, prompts: Sequence[str | list[int]]
) -> AsyncGenerator[bytes, None]:
    """The choices one after the other, told apart by their index."""
    usages = []
    async with answering.engine() as engine:
        for index, (prompt, reply) in enumerate(itertools.product(prompts, range(body.n or 1))):
            logprobs = _Logprobs(engine)
            async with engine.generate(prompt, **answering.limited(body.options(reply))) as stream:
                async for piece in stream:
                    found = logprobs.add(piece)
                    choice = _choice(index, piece.text, logprobs=None if body.logprobs is None else found)
                    yield event({**head, "choices": [choice]})
                summary = await stream.summary()
            answering.ended(summary)
            usages.append(asdict(summary.usage))
            last = {"choices": [_choice(index, "", str(summary.finish_reason))], "timings": asdict(summary.timings)}
            yield event({**head, **last})
    if body.stream_options is not None and body.stream_options.include_usage:
        yield event({**head, "choices": [], "usage": _sum(usages)})
    yield b"data: [DONE]\n\n"


def _choice(
    index: int, text: str, reason: str | None = None, logprobs: dict[str, list[Any]] | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": openai_reason(reason)}


class _Logprobs:
    """The log probabilities of one choice as this API has them: lists with an item for each token.

    Args:
        engine: whose tokens these are.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._token_bytes = engine.engine.frontend.shown_bytes
        self._n_characters = 0
        self.all: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }

    def add(self, piece: Piece) -> dict[str, list[Any]]:
        """Take a piece, and return its part of the lists."""
        found: dict[str, list[Any]] = {
            "tokens": [self._text(piece.token_id)],
            "token_logprobs": [piece.logprob],
            "top_logprobs": [{self._text(token): logprob for token, logprob in piece.top_logprobs}],
            "text_offset": [self._n_characters],  # in the text of the choice
        }
        self._n_characters += len(piece.text)
        for name, values in found.items():
            self.all[name] += values
        return found

    def _text(self, token: int) -> str:
        return self._token_bytes(token).decode("utf-8", "replace")
