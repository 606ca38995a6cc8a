"""From a conversation to token ids: the template's special tokens are tokens, those that a user typed stay text."""

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
    tokens: list[int]  # with exactly one BOS, where the model wants one


def chat_prompt(template: ChatTemplate, tokenizer: Tokenizer, messages: Sequence[Message]) -> ChatPrompt:
    """Render ``messages`` and encode the prompt.

    Encoding content and template apart would give other ids than the model was trained on wherever a word spans both.
    So they are rendered together, with a mark that nothing else holds inside each special token of a message (and after
    a message that ends like the beginning of one): whatever the template does with the content, what is cut out of the
    rendered text as a special token is the template's own. The mark is taken out of the stretches between.

    Raises:
        TemplateError: the template fails on these messages.
        PromptError: a message without text.
    """
    for number, message in enumerate(messages):
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise PromptError(f"message {number} is {message!r}, expected a role and a content, both text")
    mark = _unused(template.source + str(messages))
    rendered = template.render([_shield(message, tokenizer, mark) for message in messages])
    parts = (p if isinstance(p, int) else p.replace(mark, "") for p in tokenizer.special.split(rendered))
    return ChatPrompt(rendered.replace(mark, ""), tokenizer.with_bos(tokenizer.encode_parts(parts)))


def _unused(text: str) -> str:
    """A character of the private use area that ``text`` does not hold, as itself or escaped."""
    return next(mark for mark in map(chr, _PRIVATE_USE) if mark not in text and f"{ord(mark):x}" not in text)


def _shield(value: Any, tokenizer: Tokenizer, mark: str) -> Any:
    """``value``, with a mark inside each special token of its strings and after what may become one."""
    if isinstance(value, Mapping):
        return {key: _shield(item, tokenizer, mark) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shield(item, tokenizer, mark) for item in value]
    if not isinstance(value, str):
        return value
    parts = tokenizer.special.split(value)
    texts = [part if isinstance(part, str) else tokenizer.token_text(part) for part in parts]
    broken = "".join(t if isinstance(p, str) else t[0] + mark + t[1:] for p, t in zip(parts, texts, strict=True))
    end = len(broken.rstrip())  # a template may trim
    return broken[:end] + mark * tokenizer.special.may_begin_in(broken[:end]) + broken[end:]
