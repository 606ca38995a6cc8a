"""Chat completions in OpenAI's format, with DeepSeek's ``reasoning_content`` and llama-server's ``timings``.

They are plain dictionaries, ready for ``json.dumps`` and for programs written for another engine.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Literal, NotRequired, TypedDict

from sprat.runtime.chat.reasoning import ReasoningParts, ReasoningSplitter
from sprat.runtime.generate.generation import Generation

__all__ = ["ChatChunk", "ChatCompletion", "ChatStream", "Choice", "ChunkChoice", "Delta", "Message"]


class Message(TypedDict):
    """One message of a conversation; fields beside these go to the chat template."""

    role: str
    content: str
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


class Delta(TypedDict, total=False):
    """What a chunk adds to the reply."""

    role: str
    content: str
    reasoning_content: str


class Choice(TypedDict):
    """The reply. ``finish_reason`` is OpenAI's ``stop`` or ``length``, or sprat's ``cancelled`` or ``timeout``."""

    index: int
    message: Message
    finish_reason: str


class ChunkChoice(TypedDict):
    """A part of the reply."""

    index: int
    delta: Delta
    finish_reason: str | None


class ChatCompletion(TypedDict):
    """A whole reply."""

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

    Both give the same text: the deltas of the chunks join to the message of the completion.

    Args:
        generation: the answer.
        splitter: separates the reasoning from the answer.
        model: the model's name.
        on_reply: called with the complete reply.
    """

    def __init__(
        self,
        generation: Generation,
        splitter: ReasoningSplitter,
        *,
        model: str,
        on_reply: Callable[[Message], None] = lambda _reply: None,
    ) -> None:
        self._generation = generation
        self._splitter = splitter
        self._model = model
        self._on_reply = on_reply
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._reply = Message(role="assistant", content="")
        self._chunks = self._run()

    def __iter__(self) -> Iterator[ChatChunk]:
        return self

    def __next__(self) -> ChatChunk:
        return next(self._chunks)

    def cancel(self) -> None:
        """End the reply after the current forward pass; may be called from any thread."""
        self._generation.cancel()

    def completion(self) -> ChatCompletion:
        """Generate the rest, and return the whole reply."""
        for _ in self:
            pass
        summary = self._generation.summary
        return ChatCompletion(
            id=self._id,
            object="chat.completion",
            created=self._created,
            model=self._model,
            choices=[Choice(index=0, message=self._reply, finish_reason=str(summary.finish_reason))],
            usage=asdict(summary.usage),
            timings=asdict(summary.timings),
        )

    def _run(self) -> Iterator[ChatChunk]:
        yield self._chunk(Delta(role="assistant", content=""))
        for piece in self._generation:
            if delta := self._add(self._splitter.feed(piece.text)):
                yield self._chunk(delta)
        if delta := self._add(self._splitter.flush()):
            yield self._chunk(delta)
        self._on_reply(self._reply)
        summary = self._generation.summary
        last = self._chunk(Delta(), str(summary.finish_reason))
        last["usage"], last["timings"] = asdict(summary.usage), asdict(summary.timings)
        yield last

    def _chunk(self, delta: Delta, finish_reason: str | None = None) -> ChatChunk:
        return ChatChunk(
            id=self._id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._model,
            choices=[ChunkChoice(index=0, delta=delta, finish_reason=finish_reason)],
        )

    def _add(self, parts: ReasoningParts) -> Delta:
        """Add ``parts`` to the reply, and return the delta; empty when the parts are."""
        delta = Delta()
        if parts.reasoning:
            delta["reasoning_content"] = parts.reasoning
            self._reply["reasoning_content"] = self._reply.get("reasoning_content", "") + parts.reasoning
        if parts.content:
            delta["content"] = parts.content
            self._reply["content"] += parts.content
        return delta
