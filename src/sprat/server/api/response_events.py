"""``ResponseEvents``: a response of OpenAI's Responses API, item by item, and the events that tell of it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from sprat.runtime.chat.reply import TokenLogprob
from sprat.runtime.chat.tools.splitter import ToolCall
from sprat.server.exchange import event

__all__ = ["ItemKind", "ResponseEvents"]

ItemKind = Literal["reasoning", "message"]
_PARTS = {"reasoning": "reasoning_text", "message": "output_text"}
_PREFIX = {"reasoning": "rs", "message": "msg"}


class ResponseEvents:
    """Builds a response and its events together.

    Args:
        response: the record of the response, which grows.
    """

    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response
        self._output: list[dict[str, Any]] = response["output"]
        self._number = self._n_reasoning = 0
        self._logprobs: list[TokenLogprob] = []  # of tokens whose text is still to come

    def begin(self) -> Iterator[bytes]:
        """The first events."""
        yield self._event("response.created", response=self.response)
        yield self._event("response.in_progress", response=self.response)

    def text(self, kind: ItemKind, delta: str, logprobs: Sequence[TokenLogprob] = ()) -> Iterator[bytes]:
        """The events of ``delta``, which is added to the item of its kind, and of the log probabilities of its tokens.

        Those of a token without text, a part of a character or of what may become a stop string, come with the next.
        """
        self._logprobs += logprobs
        if not delta:
            return
        if not self._output or (self._output[-1]["type"], self._output[-1]["status"]) != (kind, "in_progress"):
            yield from self._end_item()
            yield from self._begin_item(kind)
        self._n_reasoning += kind == "reasoning"
        part, taken = self._output[-1]["content"][0], self._logprobs
        part["text"] += delta
        if kind == "message":
            part["logprobs"] += taken
            self._logprobs = []
        told = _logprobs(kind, taken)
        yield self._event(f"response.{_PARTS[kind]}.delta", **self._place(), delta=delta, **told)

    def call(self, call: ToolCall) -> Iterator[bytes]:
        """The events of a function call, which is complete."""
        yield from self._end_item()
        function = call["function"]
        item: dict[str, Any] = {"id": f"fc_{secrets.token_hex(12)}", "type": "function_call", "status": "in_progress"}
        self._output.append(item | {"call_id": call["id"], "name": function["name"], "arguments": ""})
        place = {"output_index": len(self._output) - 1}
        yield self._event("response.output_item.added", **place, item=self._output[-1])
        arguments = function["arguments"]
        self._output[-1] |= {"arguments": arguments, "status": "completed"}
        kind = "response.function_call_arguments"
        yield self._event(f"{kind}.delta", **place, item_id=item["id"], delta=arguments)
        yield self._event(f"{kind}.done", **place, item_id=item["id"], name=function["name"], arguments=arguments)
        yield self._event("response.output_item.done", **place, item=self._output[-1])

    def end(self, reason: str, usage: dict[str, Any], timings: dict[str, Any]) -> Iterator[bytes]:
        """The last events."""
        yield from self._end_item()
        is_whole = reason != "length"
        self.response |= {
            "status": "completed" if is_whole else "incomplete",
            "incomplete_details": None if is_whole else {"reason": "max_output_tokens"},
            "usage": _usage(usage, timings, self._n_reasoning),
            "timings": timings,
        }
        yield self._event(f"response.{self.response['status']}", response=self.response)

    def _begin_item(self, kind: ItemKind) -> Iterator[bytes]:
        item: dict[str, Any] = {"id": f"{_PREFIX[kind]}_{secrets.token_hex(12)}", "type": kind, "status": "in_progress"}
        extra: dict[str, Any] = {"role": "assistant"} if kind == "message" else {"summary": []}
        self._output.append({**item, **extra, "content": []})
        yield self._event("response.output_item.added", output_index=len(self._output) - 1, item=self._output[-1])
        part = {"type": _PARTS[kind], "text": "", **({"annotations": [], "logprobs": []} if kind == "message" else {})}
        self._output[-1]["content"].append(part)
        yield self._event("response.content_part.added", **self._place(), part=part)

    def _end_item(self) -> Iterator[bytes]:
        if not self._output or self._output[-1]["status"] == "completed":
            return
        item = self._output[-1]
        part = item["content"][0]
        told = _logprobs(item["type"], part.get("logprobs", []))
        yield self._event(f"response.{part['type']}.done", **self._place(), text=part["text"], **told)
        yield self._event("response.content_part.done", **self._place(), part=part)
        item["status"] = "completed"
        yield self._event("response.output_item.done", output_index=len(self._output) - 1, item=item)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        told = event({"type": kind, "sequence_number": self._number, **fields}, kind)
        self._number += 1
        return told


def _logprobs(kind: str, logprobs: list[TokenLogprob]) -> dict[str, Any]:
    return {"logprobs": logprobs} if kind == "message" else {}


def _usage(usage: dict[str, Any], timings: dict[str, Any], n_reasoning: int) -> dict[str, Any]:
    """The tokens under the names of this API. Of the reasoning, those with text are counted: one for each delta."""
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": timings["cache_n"]},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": n_reasoning},
        "total_tokens": usage["total_tokens"],
    }
