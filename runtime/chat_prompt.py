"""From a conversation to token ids: the template's special tokens are tokens, those that a user typed stay text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sprat.errors import PromptError
from sprat.runtime.chat import ChatTemplate
from sprat.runtime.completions import Message
from sprat.runtime.tokenizer import Tokenizer

__all__ = ["ChatPrompt", "chat_prompt"]

_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A rendered conversation."""

    text: str
    tokens: list[int]  # with exactly one BOS, where the model wants one


def chat_prompt(template: ChatTemplate, tokenizer: Tokenizer, messages: Sequence[Message]) -> ChatPrompt:
    """Render ``messages`` and encode the prompt.

    A special token inside a message is broken by a mark that nothing else holds, so that it is none when the rendered
    text is cut at special tokens; the mark is taken out of the stretches between them.

    Raises:
        TemplateError: the template fails on these messages.
        PromptError: a message without text.
    """
    for number, message in enumerate(messages):
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise PromptError(f"message {number} is {message!r}, expected a role and a content, both text")
    everything = template.source + "".join(message["content"] for message in messages)
    mark = next(chr(code) for code in _PRIVATE_USE if chr(code) not in everything)
    shielded = [{**message, "content": _shield(message["content"], tokenizer, mark)} for message in messages]
    rendered = template.render(shielded)
    tokens: list[int] = []
    for part in tokenizer.split_special(rendered):
        tokens += [part] if isinstance(part, int) else tokenizer.encode(part.replace(mark, ""))
    return ChatPrompt(rendered.replace(mark, ""), tokenizer.with_bos(tokens))


def _shield(content: str, tokenizer: Tokenizer, mark: str) -> str:
    """``content`` with a mark inside each special token."""
    parts = []
    for part in tokenizer.split_special(content):
        text = part if isinstance(part, str) else tokenizer.token_text(part)
        parts.append(text if isinstance(part, str) else text[0] + mark + text[1:])
    return "".join(parts)
