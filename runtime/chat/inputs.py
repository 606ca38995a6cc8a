"""Inputs of a chat template: messages, tools, documents and variables as plain data of tracked strings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sprat.errors import PromptError, TemplateError
from sprat.runtime.chat.budget import MAX_VALUE_SIZE, Budget, size_of
from sprat.runtime.chat.tracked_text import as_input

__all__ = ["RESERVED_NAMES", "ROLES", "charge_inputs", "template_inputs"]

RESERVED_NAMES = frozenset({"add_generation_prompt", "documents", "messages", "tools"})

_MAX_DEPTH = 64  # of nested data
_REASONING = ("reasoning_content", "thinking", "reasoning")  # names under which a message has its reasoning
# Templates join these to control tokens (``'<|' + role + '|>'``), so they count as the template's text. Any other role
# counts as input: it could complete any token.
_ROLE_NAMES = (
    "assistant context critic developer document documents environment function ipython model observation system tool "
    "tool_response user"
)
ROLES = frozenset(_ROLE_NAMES.split())


def template_inputs(
    messages: Sequence[Any],
    *,
    tools: Sequence[Any] | None,
    documents: Sequence[Any] | None,
    variables: Mapping[str, Any],
) -> dict[str, Any]:
    """The variables of a template, as transformers hands them over.

    Fields of a message that are ``None`` are left out, and its reasoning is found under all names in use.

    Raises:
        TemplateError: a value is not plain data, or a variable has the name of an argument.
        PromptError: a text is longer than a template may read.
    """
    if reserved := RESERVED_NAMES.intersection(variables):
        raise TemplateError(f"a variable of the chat template is called {min(reserved)}; pass it as the argument")
    return {
        **{name: _plain(value) for name, value in variables.items()},
        "messages": [_message(message) for message in messages],
        "tools": None if tools is None else _plain(list(tools)),
        "documents": None if documents is None else _plain(list(documents)),
    }


def charge_inputs(budget: Budget, inputs: Mapping[str, Any]) -> None:
    """Charge the variables of a template before it is rendered.

    Raises:
        PromptError: they are together larger than a template may read.
    """
    try:
        budget.reserve(size_of(inputs))
    except TemplateError as error:
        raise _too_long() from error


def _too_long() -> PromptError:
    return PromptError(
        f"the conversation is too long: its messages, tools and variables have more than {MAX_VALUE_SIZE:,} characters "
        "together; shorten them"
    )


def _message(message: Any) -> dict[str, Any]:
    fields = _plain(message)
    if not isinstance(fields, dict):
        raise TemplateError(f"a message is a {type(message).__name__}, expected a dict with role and content")
    found = {name: value for name, value in fields.items() if value is not None}
    if str(found.get("role")).lower() in ROLES:
        found["role"] = str.__str__(found["role"])
    reasoning = next((found[name] for name in _REASONING if name in found), None)
    return found if reasoning is None else {"thinking": reasoning, **found, "reasoning_content": reasoning}


def _plain(value: Any, depth: int = 0) -> Any:
    """A copy of ``value`` made of dicts, lists, tuples, tracked strings, numbers, booleans and None only.

    Raises:
        TemplateError: ``value`` holds another type, or is nested too deep.
        PromptError: it holds a text that is too long to be copied.
    """
    if depth > _MAX_DEPTH:
        raise TemplateError(f"a message is nested more than {_MAX_DEPTH} deep, expected a dict with role and content")
    if value is None or type(value) in (int, float, bool):
        return value
    if isinstance(value, str):
        if len(value) > MAX_VALUE_SIZE:
            raise _too_long()
        return as_input(str.__str__(value))
    if isinstance(value, Mapping):
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (
            type(value)(_plain(item, depth + 1) for item in value)
            if type(value) in (list, tuple)
            else [_plain(item, depth + 1) for item in value]
        )
    return _plain(_converted(value), depth + 1)


def _converted(value: Any) -> Any:
    """Plain data of a dataclass, a Pydantic model (as OpenAI's client returns them) or a NumPy scalar."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for method in ("model_dump", "item"):
        try:
            if callable(getattr(value, method, None)) and not isinstance(value, type):
                return getattr(value, method)()
        except Exception as error:  # the caller's own class
            raise TemplateError(f"a {type(value).__name__} in the messages fails as {method}(): {error}") from error
    raise TemplateError(
        f"found a {type(value).__name__} in the messages or variables of a chat template, expected strings, numbers, "
        "booleans, lists and dicts"
    )
