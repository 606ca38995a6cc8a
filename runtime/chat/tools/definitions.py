"""OpenAI's ``tools`` and ``tool_choice``, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sprat.errors import InputError, unknown_name

__all__ = ["Tool", "ToolChoice", "choose_tools", "tools_of"]

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_MODES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    Attributes:
        name: as the model writes it.
        parameters: JSON schema of its arguments, an object.
    """

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Tools that may be called.

    Attributes:
        tools: empty for none.
        is_required: the answer is a call.
    """

    tools: tuple[Tool, ...]
    is_required: bool


def tools_of(tools: Sequence[Any]) -> tuple[Tool, ...]:
    """The functions of OpenAI's ``tools``; the function itself is accepted, too.

    Raises:
        InputError: one has no name, a name that a model cannot write, or parameters that are no schema of an object.
    """
    found = tuple(_tool(tool, index) for index, tool in enumerate(tools))
    names = [tool.name for tool in found]
    if len(set(names)) < len(names):
        raise InputError(f"tools have the names {', '.join(names)}, expected different ones")
    return found


def _tool(tool: Any, index: int) -> Tool:
    fields = tool if isinstance(tool, Mapping) else getattr(tool, "__dict__", {})
    function = fields.get("function", fields)
    function = function if isinstance(function, Mapping) else getattr(function, "__dict__", {})
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"tool {index} has the name {name!r}, expected up to 64 letters, digits, _, - and dots: "
            '{"type": "function", "function": {"name": ..., "parameters": ...}}'
        )
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise InputError(f"tool {name!r} has the parameters {parameters!r:.200}, expected a JSON schema of an object")
    # A function takes the arguments that it names. JSON Schema allows others unless they are excluded.
    return Tool(name, {"type": "object", "properties": {}, "additionalProperties": False, **parameters})


def choose_tools(tools: tuple[Tool, ...], choice: Any) -> ToolChoice:
    """The tools that ``tool_choice`` leaves: ``"auto"``, ``"none"``, ``"required"``, or one function by name.

    Raises:
        InputError: it is none of these, or there is no such tool.
    """
    if choice is None or choice == "auto":
        return ToolChoice(tools, is_required=False)
    if choice == "none":
        return ToolChoice((), is_required=False)
    if choice == "required":
        if not tools:
            raise InputError("tool_choice is 'required', but there are no tools; pass tools=[...]")
        return ToolChoice(tools, is_required=True)
    function = choice.get("function", choice) if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else choice
    chosen = tuple(tool for tool in tools if tool.name == name)
    if not chosen:
        raise InputError(f"tool_choice: {unknown_name('tool', str(name), [*_MODES, *(tool.name for tool in tools)])}")
    return ToolChoice(chosen, is_required=True)
