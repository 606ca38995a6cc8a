"""``Reply``: one reply of a chat while it is generated: reasoning, answer, tool calls and log probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from sprat.runtime.chat.reasoning import ReasoningParts, ReasoningSplitter
from sprat.runtime.chat.tools.splitter import ToolCall, ToolCallSplitter
from sprat.runtime.generate.results import FinishReason, Piece

__all__ = ["Delta", "Logprobs", "Message", "Reply", "TokenLogprob", "ToolCallDelta"]


class Message(TypedDict):
    """One message of a conversation; fields beside these go to the chat template."""

    role: str
    content: str
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


class ToolCallDelta(ToolCall):
    """A call in a chunk, which is complete; ``index`` counts the calls of a reply."""

    index: int


class Delta(TypedDict, total=False):
    """The change of the message in one chunk: OpenAI's ``delta``."""

    role: str
    content: str
    reasoning_content: str
    tool_calls: list[ToolCallDelta]


class TokenLogprob(TypedDict):
    """A token, its natural log probability and its UTF-8 bytes, which may be part of a character."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: NotRequired[list[TokenLogprob]]


class Logprobs(TypedDict):
    """The tokens of the answer, those of the reasoning left out."""

    content: list[TokenLogprob]


class Reply:
    """Takes the pieces of one reply, and gives what each adds.

    Args:
        splitter: separates the reasoning from the answer.
        calls: separates tool calls from the answer, where tools may be called.
        token_bytes: the UTF-8 bytes of a token id, for log probabilities; ``None`` to leave them out.
    """

    def __init__(
        self,
        splitter: ReasoningSplitter,
        calls: ToolCallSplitter | None = None,
        token_bytes: Callable[[int], bytes] | None = None,
    ) -> None:
        self._splitter = splitter
        self._calls = calls
        self._token_bytes = token_bytes
        self.message = Message(role="assistant", content="")
        self.logprobs: Logprobs | None = None if token_bytes is None else Logprobs(content=[])

    def feed(self, piece: Piece) -> tuple[Delta, Logprobs | None]:
        """Add a piece; returns the change of the message (may be empty), and log probabilities if they are reported."""
        was_reasoning = self._splitter.is_reasoning
        delta = self._add(self._splitter.feed(piece.text))
        if self.logprobs is None or was_reasoning or self._splitter.is_reasoning:
            return delta, None
        entry = self._logprob(piece)
        self.logprobs["content"].append(entry)
        return delta, Logprobs(content=[entry])

    def flush(self) -> Delta:
        """The rest of the message at the end of the answer."""
        delta = self._add(self._splitter.flush())
        if self._calls is not None and (content := self._calls.flush().content):
            self.message["content"] += content
            delta["content"] = delta.get("content", "") + content
        return delta

    def finish_reason(self, reason: FinishReason) -> str:
        """OpenAI's ``tool_calls`` where the answer ended with calls, otherwise the generation's."""
        return "tool_calls" if self.message.get("tool_calls") and reason is FinishReason.STOP else str(reason)

    def _add(self, parts: ReasoningParts) -> Delta:
        """Add ``parts`` to the message, and return the delta; empty when the parts are."""
        delta = Delta()
        if parts.reasoning:
            delta["reasoning_content"] = parts.reasoning
            self.message["reasoning_content"] = self.message.get("reasoning_content", "") + parts.reasoning
        content, calls = parts.content, list[ToolCall]()
        if self._calls is not None and content:
            content, calls = self._calls.feed(content)
        if content:
            delta["content"] = content
            self.message["content"] += content
        if calls:
            before = list(self.message.get("tool_calls", []))
            delta["tool_calls"] = [
                ToolCallDelta(**call, index=index) for index, call in enumerate(calls, start=len(before))
            ]
            self.message["tool_calls"] = [*before, *calls]
        return delta

    def _logprob(self, piece: Piece) -> TokenLogprob:
        entry = self._entry(piece.token_id, piece.logprob)
        entry["top_logprobs"] = [self._entry(token, logprob) for token, logprob in piece.top_logprobs]
        return entry

    def _entry(self, token_id: int, logprob: float) -> TokenLogprob:
        assert self._token_bytes is not None, "log probabilities are asked for with the bytes of tokens"
        data = self._token_bytes(token_id)
        return TokenLogprob(token=data.decode("utf-8", "replace"), logprob=logprob, bytes=list(data))
