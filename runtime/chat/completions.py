"""Chat completions in OpenAI's format, with DeepSeek's ``reasoning_content`` and llama-server's ``timings``.

They are plain dictionaries, ready for ``json.dumps`` and for programs written for another engine.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from typing import Any, Literal, NotRequired, TypedDict

from sprat.runtime.chat.reply import Delta, Logprobs, Message, Reply
from sprat.runtime.generate.generation import Generation
from sprat.runtime.generate.results import Summary

__all__ = ["ChatChunk", "ChatCompletion", "ChatStream", "Choice", "ChunkChoice", "Delta", "Message"]

_ADDED = {"completion_tokens", "predicted_n", "predicted_ms", "draft_n", "draft_n_accepted"}
"""Counts that are added up for several replies, which share the prompt."""


class Choice(TypedDict):
    """A reply.

    ``finish_reason`` is OpenAI's ``stop``, ``length`` or ``tool_calls``, or sprat's ``cancelled`` or ``timeout``.
    """

    index: int
    message: Message
    finish_reason: str
    logprobs: NotRequired[Logprobs]


class ChunkChoice(TypedDict):
    """A part of the reply."""

    index: int
    delta: Delta
    finish_reason: str | None
    logprobs: NotRequired[Logprobs]


class ChatCompletion(TypedDict):
    """A whole reply, or ``n`` of them."""

    id: str
    object: Literal["chat.completion"]
    created: int  # seconds since 1970
    model: str
    choices: list[Choice]
    usage: dict[str, Any]
    timings: dict[str, Any]


class ChatChunk(TypedDict):
    """A part of a reply; the last one carries ``usage`` and ``timings``."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[dict[str, Any]]
    timings: NotRequired[dict[str, Any]]


class ChatStream(Iterator[ChatChunk]):
    """A streamed reply: iterate over its chunks, or get the whole reply with :meth:`completion`.

    Both give the same text: the deltas of the chunks join to the message of the completion. Several replies follow one
    another, and ``index`` says which one a chunk belongs to.

    Args:
        generations: the answers; each is taken when the one before has ended, and the generator is closed after them.
        new_reply: an empty reply.
        model: the model's name.
        on_reply: called with each complete reply.
    """

    def __init__(
        self,
        generations: Generator[Generation],
        new_reply: Callable[[], Reply],
        *,
        model: str,
        on_reply: Callable[[Message], None] = lambda _reply: None,
    ) -> None:
        self._current = next(generations)  # what is wrong with the prompt is an error of the call
        self._others = generations
        self._new_reply = new_reply
        self._model = model
        self._on_reply = on_reply
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._choices: list[Choice] = []
        self._summaries: list[Summary] = []
        self._is_cancelled = False
        self._chunks = self._run()

    def __iter__(self) -> Iterator[ChatChunk]:
        return self

    def __next__(self) -> ChatChunk:
        return next(self._chunks)

    def cancel(self) -> None:
        """End the reply after the current forward pass; may be called from any thread."""
        self._is_cancelled = True
        self._current.cancel()

    def completion(self) -> ChatCompletion:
        """Generate the rest, and return the whole reply."""
        for _ in self:
            pass
        usage, timings = _totals(self._summaries)
        return ChatCompletion(
            id=self._id,
            object="chat.completion",
            created=self._created,
            model=self._model,
            choices=self._choices,
            usage=usage,
            timings=timings,
        )

    def _run(self) -> Iterator[ChatChunk]:
        try:
            yield from self._chunks_of(self._current)
            for generation in self._others if not self._is_cancelled else ():
                self._current = generation
                yield from self._chunks_of(generation)
        finally:
            self._others.close()

    def _chunks_of(self, generation: Generation) -> Iterator[ChatChunk]:
        """The chunks of one reply; totals of all so far are in its last one."""
        reply = self._new_reply()
        yield self._chunk(Delta(role="assistant", content=""))
        for piece in generation:
            delta, logprobs = reply.feed(piece)
            if delta or logprobs:
                yield self._chunk(delta, logprobs=logprobs)
        if delta := reply.flush():
            yield self._chunk(delta)
        self._on_reply(reply.message)
        summary = generation.summary
        last = self._chunk(Delta(), reply.finish_reason(summary.finish_reason))
        self._summaries.append(summary)
        choice = Choice(
            index=len(self._choices),
            message=reply.message,
            finish_reason=reply.finish_reason(summary.finish_reason),
        )
        if reply.logprobs is not None:
            choice["logprobs"] = reply.logprobs
        self._choices.append(choice)
        last["usage"], last["timings"] = _totals(self._summaries)
        yield last

    def _chunk(self, delta: Delta, finish_reason: str | None = None, *, logprobs: Logprobs | None = None) -> ChatChunk:
        choice = ChunkChoice(index=len(self._choices), delta=delta, finish_reason=finish_reason)
        if logprobs is not None:
            choice["logprobs"] = logprobs
        return ChatChunk(
            id=self._id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._model,
            choices=[choice],
        )


def _totals(summaries: list[Summary]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``usage`` and ``timings`` of several replies to one prompt: those of the first, with the tokens of all."""
    first, *others = summaries
    usage, timings = asdict(first.usage), asdict(first.timings)
    for summary in others:
        for total, added in ((usage, asdict(summary.usage)), (timings, asdict(summary.timings))):
            for name in _ADDED & total.keys():
                total[name] += added[name]
    if others:
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        seconds = timings["predicted_ms"] / 1e3
        timings["predicted_per_second"] = timings["predicted_n"] / seconds if seconds else 0.0
    return usage, timings
