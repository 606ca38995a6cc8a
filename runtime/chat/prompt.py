"""A conversation to token ids: special tokens of the template become tokens, those in messages stay plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sprat.errors import PromptError
from sprat.runtime.chat.completions import Message
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["ChatPrompt", "chat_prompt"]

_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A rendered conversation."""

    text: str
    tokens: list[int]  # with exactly one BOS, if the model wants one


def chat_prompt(template: ChatTemplate, tokenizer: Tokenizer, messages: Sequence[Message]) -> ChatPrompt:
    """Render ``messages`` and encode the prompt.

    Messages and template cannot be encoded separately: where a word spans both, the ids would differ from those the
    model was trained on. So they are rendered together, with a marker character inside each special token of a message,
    and after a message that ends with a prefix of one. A special token in the rendered text is then the template's. The
    marker is removed from the plain text between special tokens before that is encoded.

    Args:
        template: the model's chat template.
        tokenizer: the model's tokenizer.
        messages: the conversation, oldest first.

    Raises:
        TemplateError: the template fails on these messages.
        PromptError: a message without a role or content.
    """
    for index, message in enumerate(messages):
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise PromptError(f"message {index} is {message!r}, expected a dict with role and content, both strings")
    marker = _unused_character(template.source + str(messages))
    rendered = template.render([_escape(message, tokenizer, marker) for message in messages])
    parts = (p if isinstance(p, int) else p.replace(marker, "") for p in tokenizer.special.split(rendered))
    return ChatPrompt(rendered.replace(marker, ""), tokenizer.with_bos(tokenizer.encode_parts(parts)))


def _unused_character(text: str) -> str:
    """A character of the private use area that is not in ``text``, neither as itself nor as an escape."""
    return next(char for char in map(chr, _PRIVATE_USE) if char not in text and f"{ord(char):x}" not in text)


def _escape(value: Any, tokenizer: Tokenizer, marker: str) -> Any:
    """``value`` with ``marker`` inside each special token of its strings, and after a prefix of one at their ends."""
    if isinstance(value, Mapping):
        return {key: _escape(item, tokenizer, marker) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escape(item, tokenizer, marker) for item in value]
    if not isinstance(value, str):
        return value
    parts = tokenizer.special.split(value)
    texts = [part if isinstance(part, str) else tokenizer.token_text(part) for part in parts]
    escaped = "".join(t if isinstance(p, str) else t[0] + marker + t[1:] for p, t in zip(parts, texts, strict=True))
    end = len(escaped.rstrip())  # a template may trim
    return escaped[:end] + marker * tokenizer.special.ends_with_prefix(escaped[:end]) + escaped[end:]
