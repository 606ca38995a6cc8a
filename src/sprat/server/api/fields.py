"""Fields that several requests share: messages, sampling, and what is accepted without effect."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sprat.server.errors import ApiError

__all__ = [
    "ChatMessage",
    "NoEffect",
    "ReasoningEffort",
    "Sampling",
    "StreamOptions",
    "TextPart",
    "given",
    "is_tokens",
    "plain_messages",
    "text_of",
]

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Count = Annotated[int, Meta(ge=1)]
_SEEDS = 1 << 64  # an engine's begin at 0


class TextPart(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message; the only kind that a text model reads. A refusal is another model's answer."""

    text: str | None = None
    type: Literal["text", "input_text", "output_text", "reasoning_text", "refusal"] = "text"
    refusal: str | None = None
    annotations: list[Any] = []
    logprobs: list[Any] = []
    prompt_cache_breakpoint: Any = None  # without effect: what prompts share is found anyway

    def __post_init__(self) -> None:
        """Refuse a part without text.

        Raises:
            ValueError: it has none; a request's error tells where.
        """
        if self.text is None and self.refusal is None:
            raise ValueError("Object missing required field `text`")


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class NoEffect(msgspec.Struct, kw_only=True):
    """Fields for OpenAI's own service, which mean nothing on this machine."""

    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    user: str | None = None


class Sampling(NoEffect, kw_only=True):
    """Sampling parameters; names of OpenAI, and those that sprat and llama.cpp add."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_n_sigma: Annotated[float, Meta(ge=0)] | None = None
    xtc_probability: Annotated[float, Meta(ge=0, le=1)] | None = None
    xtc_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: dict[int, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    max_thinking_tokens: Annotated[int, Meta(ge=0)] | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None

    def sampling(self) -> dict[str, Any]:
        """The keywords of ``generate`` that were given."""
        found = given(self, *(set(Sampling.__struct_fields__) - set(NoEffect.__struct_fields__)))
        return found if self.seed is None else {**found, "seed": self.seed % _SEEDS}


def given(request: msgspec.Struct, *names: str) -> dict[str, Any]:
    """The fields ``names`` of a request that were given."""
    return {name: value for name in names if (value := getattr(request, name)) is not None}


def is_tokens(prompt: object) -> bool:
    """Whether a prompt is token ids."""
    return isinstance(prompt, list) and bool(prompt) and all(type(token) is int for token in prompt)


def text_of(content: str | list[TextPart] | None) -> str | None:
    """The text of a message's content."""
    return "".join(part.text or part.refusal or "" for part in content) if isinstance(content, list) else content


def plain_messages(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    """The messages for a chat template.

    Raises:
        ApiError: a message is empty.
    """
    plain = []
    for index, message in enumerate(messages):
        content = message.refusal if message.content is None else text_of(message.content)
        fields = {"content": content, "name": message.name, "tool_calls": message.tool_calls}
        fields |= {"reasoning_content": message.reasoning_content, "tool_call_id": message.tool_call_id}
        if content is None and not message.tool_calls:
            raise ApiError(400, f"message {index} has neither content nor tool_calls", param=f"messages[{index}]")
        role = "system" if message.role == "developer" else message.role
        given = {name: value for name, value in fields.items() if value is not None}
        plain.append({"role": role, "content": None, **given})
    return plain
