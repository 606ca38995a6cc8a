"""``ToolCallSplitter``: separates tool calls from the text of a streamed answer."""

from __future__ import annotations

import json
import secrets
from typing import Any, NamedTuple, TypedDict

from sprat.runtime.chat.tools.formats import ToolFormat
from sprat.runtime.generate.stop import longest_overlap

__all__ = ["CallParts", "FunctionCall", "ToolCall", "ToolCallSplitter"]


class FunctionCall(TypedDict):
    """A function's name, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A call, in OpenAI's format."""

    id: str
    type: str
    function: FunctionCall


class CallParts(NamedTuple):
    """Content and complete calls in a piece of generated text."""

    content: str
    calls: list[ToolCall]


class ToolCallSplitter:
    """Splits generated text, fed in pieces of any size.

    Calls are reported when they are complete. Text that begins like calls and does not become any is content.

    Args:
        used: how the model writes calls.
    """

    def __init__(self, used: ToolFormat) -> None:
        self._format = used
        self._held = ""
        self._is_calling = False
        self._n_calls = 0
        self._at_start = True

    def feed(self, text: str) -> CallParts:
        """The text that is certainly content, and the calls that this text completes."""
        self._held += text
        content = "" if self._is_calling else self._before_calls()
        calls = self._calls() if self._is_calling else []
        self._n_calls += len(calls)
        return CallParts(content, calls)

    def flush(self) -> CallParts:
        """The rest of the text at the end of the answer: content, unless there were calls."""
        held, self._held = self._held, ""
        return CallParts("" if self._n_calls else held, [])

    def _before_calls(self) -> str:
        """Release the text before the trigger."""
        trigger = self._format.trigger
        if self._format.at_start:
            text = self._held.lstrip()
            if not self._at_start or (text and not text.startswith(trigger)):
                self._at_start, content, self._held = False, self._held, ""
                return content
            self._is_calling = bool(text)
            return ""
        before, found, _ = self._held.partition(trigger)
        if found:
            self._is_calling, self._held = True, self._held[len(before) :]
            return before.rstrip()
        certain = before[: len(before) - longest_overlap(before, trigger)].rstrip()
        self._held = before[len(certain) :]
        return certain

    def _calls(self) -> list[ToolCall]:
        """The complete calls in the held text, which are removed from it."""
        calls = []
        while (found := self._next_call()) is not None:
            call, end = found
            calls.append(call)
            self._held = self._held[end:]
        return calls

    def _next_call(self) -> tuple[ToolCall, int] | None:
        used = self._format
        start = self._held.find(used.before_name)
        at = self._held.find(used.after_name, start + len(used.before_name))
        if start < 0 or at < 0:
            return None
        name, begin = self._held[start + len(used.before_name) : at], at + len(used.after_name)
        end = _end_of_object(self._held, begin)
        if end is None or not self._held.startswith(used.after_arguments, end):
            return None
        function = FunctionCall(name=name, arguments=self._held[begin:end])
        call = ToolCall(id=f"call_{secrets.token_hex(12)}", type="function", function=function)
        return call, end + len(used.after_arguments)


def _end_of_object(text: str, begin: int) -> int | None:
    """End of the JSON object that begins in ``text``; ``None`` if it is not complete."""
    try:
        value: Any
        value, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return None
    return end if isinstance(value, dict) else None
