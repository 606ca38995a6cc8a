"""OpenAI's ``tools`` and ``tool_choice``, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sprat.errors import InputError, unknown_name

__all__ = ["Tool", "ToolChoice", "choose_tools", "tools_of"]

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_MODES = ("auto", "none", "required")


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call.

    Attributes:
        name: as the model writes it.
        parameters: JSON schema of its arguments, an object.
    """

    name: str
    parameters: Mapping[str, Any]


class ToolChoice(msgspec.Struct, frozen=True):
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
    name, kind = function.get("name"), fields.get("type", "function")
    if kind != "function":
        raise InputError(f"tool {index} is of the type {kind!r}, expected 'function'")
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
    """The tools that ``tool_choice`` leaves: ``"auto"``, ``"none"``, ``"required"``, one function by name, or several.

    Several are OpenAI's ``allowed_tools``, with a mode of their own; the fields stand beside its type, or in an object.

    Raises:
        InputError: it is none of these, or there is no such tool.
    """
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        return _allowed(tools, allowed if isinstance(allowed, Mapping) else {})
    if choice is None or choice == "auto":
        return ToolChoice(tools, is_required=False)
    if choice == "none":
        return ToolChoice((), is_required=False)
    if choice == "required":
        if not tools:
            raise InputError("tool_choice is 'required', but there are no tools; pass tools=[...]")
        return ToolChoice(tools, is_required=True)
    return ToolChoice((_named(tools, choice, _MODES),), is_required=True)


def _allowed(tools: tuple[Tool, ...], allowed: Mapping[Any, Any]) -> ToolChoice:
    mode, named = allowed.get("mode"), allowed.get("tools")
    if mode not in ("auto", "required") or not isinstance(named, list | tuple) or not named:
        raise InputError(
            f"tool_choice: allowed_tools is {dict(allowed)!r:.200}, expected the mode 'auto' or 'required' and tools"
        )
    chosen = {_named(tools, one).name for one in named}
    return ToolChoice(tuple(tool for tool in tools if tool.name in chosen), is_required=mode == "required")


def _named(tools: tuple[Tool, ...], choice: Any, others: Sequence[str] = ()) -> Tool:
    """The tool that ``choice`` names, as OpenAI's object or by its name alone."""
    function = choice.get("function", choice) if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else choice
    for tool in tools:
        if tool.name == name:
            return tool
    raise InputError(f"tool_choice: {unknown_name('tool', str(name), [*others, *(tool.name for tool in tools)])}")
