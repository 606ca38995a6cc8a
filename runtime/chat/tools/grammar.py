"""The grammar of an answer with tool calls: the format's fixed texts, and arguments bound by their schemas."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from sprat.runtime.chat.tools.definitions import Tool
from sprat.runtime.chat.tools.formats import ToolFormat
from sprat.runtime.generate.constraint.response_format import JSON_OPTIONS, schema_text

__all__ = ["calls_grammar"]


def calls_grammar(
    used: ToolFormat, tools: Sequence[Tool], split: Callable[[str], list[str | int]], *, parallel: bool
) -> str:
    """A Lark grammar of one or several calls.

    Args:
        used: how the model writes calls.
        tools: what may be called.
        split: text to the ids of special tokens, and the text between them.
        parallel: several calls are possible.
    """

    def literal(text: str) -> str:
        parts = (f"<[{part}]>" if isinstance(part, int) else json.dumps(part) for part in split(text))
        return " ".join(parts)

    several = f"({literal(used.between)} call)*" if parallel and used.between is not None else ""
    rules = [
        f"start: {literal(used.opening)} call {several} {literal(used.closing)}",
        f"call: {' | '.join(f'tool_{index}' for index in range(len(tools)))}",
    ]
    for index, tool in enumerate(tools):
        schema = schema_text({**tool.parameters, "x-guidance": JSON_OPTIONS}, f"tool {tool.name!r}")
        before, after = literal(f"{used.before_name}{tool.name}{used.after_name}"), literal(used.after_arguments)
        rules.append(f"tool_{index}: {before} %json {schema} {after}")
    return "\n".join(rules)
