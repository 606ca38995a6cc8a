"""Try a chat template on typical conversations, so that a broken one is noticed before the model is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sprat.errors import TemplateError
from sprat.runtime.chat.template import DEFAULT_NAME, ChatTemplate

__all__ = ["can_chat", "template_problems"]

_QUESTION = {"role": "user", "content": "What is 2+2?"}
_HISTORY = [_QUESTION, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And 3+3?"}]
_REASONING = [
    _QUESTION,
    {"role": "assistant", "content": "4", "reasoning_content": "Easy."},
    {"role": "user", "content": "And 3+3?"},
]
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "a conversation": (_HISTORY, {}),
    "a system message": ([{"role": "system", "content": "Be brief."}, _QUESTION], {}),
    "tools": ([_QUESTION], {"tools": [_TOOL]}),
    "thinking": (_REASONING, {"variables": {"thinking": True, "enable_thinking": True}}),
    "thinking switched off": (_REASONING, {"variables": {"thinking": False, "enable_thinking": False}}),
}


def can_chat(template: ChatTemplate | None) -> bool:
    """Whether the model's chat template renders a question."""
    return template is not None and DEFAULT_NAME in template.sources and not _problem(template, [_QUESTION])


def template_problems(template: ChatTemplate | None) -> tuple[str, ...]:
    """Problems of the model's chat template, as sentences for the manifest; empty if it renders everything.

    Each template is parsed and renders a question; the one that would be used renders conversations with history, a
    system message, tools, and with thinking switched on and off.
    """
    if template is None:
        return ("no chat template: the model continues text, but cannot chat; export it with --chat-template FILE",)
    broken = {name: problem for name in template.sources if (problem := _problem(template, [_QUESTION], name=name))}
    problems = [f"chat template{_named(name)}: {problem}" for name, problem in broken.items()]
    if DEFAULT_NAME not in template.sources:
        names = ", ".join(sorted(template.sources))
        problems.append(f"chat template: none is called 'default'; a conversation must name one of {names}")
    elif DEFAULT_NAME not in broken:
        problems += _conversation_problems(template)
    return tuple(problems)


def _conversation_problems(template: ChatTemplate) -> Iterator[str]:
    for what, (messages, options) in _CONVERSATIONS.items():
        if problem := _problem(template, messages, **options):
            yield f"chat template: with {what}: {problem}"


def _named(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" {name!r}"


def _problem(template: ChatTemplate, messages: list[dict[str, Any]], **options: Any) -> str:
    """Why the template does not render ``messages``; empty if it does."""
    try:
        template.render_tracked(messages, **options)
    except TemplateError as error:
        return str(error).removeprefix("the chat template ")
    return ""
