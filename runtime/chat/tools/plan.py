"""Plan of tool calls: what the template is given, and what the answer may call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sprat.errors import PromptError
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.chat.tools.definitions import ToolChoice, choose_tools, tools_of
from sprat.runtime.chat.tools.formats import ToolFormat
from sprat.runtime.chat.tools.grammar import calls_grammar
from sprat.runtime.chat.tools.prelude import template_tools
from sprat.runtime.generate.constraint.answer import CallRules
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["ToolConversation", "ToolPlan", "with_tools"]


class ToolPlan(msgspec.Struct, frozen=True):
    """Tools that the answer may call.

    Attributes:
        format: how the model writes calls.
        choice: which tools.
        parallel: several calls are possible.
    """

    format: ToolFormat
    choice: ToolChoice
    parallel: bool

    def rules(self, tokenizer: Tokenizer) -> CallRules:
        """The grammar of the calls."""
        split = tokenizer.special.split
        return CallRules(
            grammar=calls_grammar(self.format, self.choice.tools, split, parallel=self.parallel),
            trigger=self.format.trigger,
            at_start=self.format.at_start,
            is_required=self.choice.is_required,
            shown=frozenset(part for part in split(self.format.texts) if isinstance(part, int)),
        )


class ToolConversation(msgspec.Struct, frozen=True):
    """A conversation as its template takes it.

    Attributes:
        template: the model's, after what it lacks.
        messages: with arguments of calls as text or as objects.
        tools: for the template.
        plan: ``None`` where nothing may be called.
    """

    template: ChatTemplate
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Any] | None
    plan: ToolPlan | None


def with_tools(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None,
    *,
    name: str | None,
    choice: Any,
    parallel: bool,
) -> ToolConversation:
    """Prepare a conversation with tools, or with calls in its messages; any other is returned as it is.

    Args:
        template: the model's.
        messages: checked.
        tools: OpenAI's.
        name: which of several templates.
        choice: OpenAI's ``tool_choice``.
        parallel: OpenAI's ``parallel_tool_calls``.

    Raises:
        InputError: ``tools`` or ``choice`` are wrong.
        PromptError: arguments of a call in a message are no JSON object.
    """
    chosen = choose_tools(tools_of(tools or ()), choice)
    described = tools if chosen.tools else None
    if described is None and not any(map(_has_tools, messages)):
        return ToolConversation(template, messages, None if tools else tools, None)
    found = template_tools(template.source(name, has_tools=described is not None))
    prepared = [_with_arguments(message, parsed=found.parsed_arguments) for message in messages]
    plan = ToolPlan(found.format, chosen, parallel) if described else None
    return ToolConversation(template.after(found.prelude), prepared, described, plan)


def _has_tools(message: Any) -> bool:
    return isinstance(message, Mapping) and (bool(message.get("tool_calls")) or message.get("role") == "tool")


def _with_arguments(message: Any, *, parsed: bool) -> Any:
    """``message`` with the arguments of its calls as objects (``parsed``) or as JSON text, and with content."""
    if not isinstance(message, Mapping) or not message.get("tool_calls"):
        return message
    calls = message["tool_calls"]
    if not isinstance(calls, list | tuple):
        raise PromptError(f"a message has the tool_calls {calls!r:.200}, expected a list of dicts")
    calls = [_call_with_arguments(call, parsed=parsed) for call in calls]
    return {**message, "tool_calls": calls, "content": message.get("content") or ""}


def _call_with_arguments(call: Any, *, parsed: bool) -> Any:
    fields = call if isinstance(call, Mapping) else call.model_dump() if hasattr(call, "model_dump") else {}
    function = fields.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise PromptError(f"a message has the tool call {call!r:.200}, expected a dict with a function and its name")
    arguments = function.get("arguments") or {}
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else dict(arguments)
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        name = function["name"]
        raise PromptError(f"a call of {name!r} has the arguments {arguments!r:.200}, expected a JSON object") from error
    return {"type": "function", **fields, "function": {**function, "arguments": value if parsed else text}}
