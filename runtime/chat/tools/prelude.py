"""Jinja source before a chat template that lacks support for tools: it describes them, and writes past calls.

A prelude is part of the template: its literals are the template's text, so that special tokens in them become tokens,
and what it takes from messages stays input.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from sprat.errors import PromptError, TemplateError
from sprat.runtime.chat.template import ChatTemplate
from sprat.runtime.chat.tools.formats import FALLBACK, ToolFormat, format_of

__all__ = ["TemplateTools", "template_tools"]

_DESCRIBE = """\
{%- if tools -%}
{%- set sprat = namespace(text=sprat_intro) -%}
{%- for tool in tools -%}
{%- set function = tool.function if tool.function else tool -%}
{%- set sprat.text = sprat.text + '\\n\\n### ' + function.name -%}
{%- set sprat.text = sprat.text + '\\nDescription: ' + (function.description or 'none') -%}
{%- set sprat.text = sprat.text + '\\nParameters: ' + (function.parameters or {}) | tojson -%}
{%- endfor -%}
{%- set sprat.text = sprat.text + sprat_outro -%}
{%- if messages[0].role == 'system' -%}
{%- set messages = [{'role': 'system', 'content': messages[0].content + '\\n\\n' + sprat.text}] + messages[1:] -%}
{%- else -%}
{%- set messages = [{'role': 'system', 'content': sprat.text}] + messages -%}
{%- endif -%}
{%- endif -%}
{%- set tools = none -%}
"""
_REWRITE = """\
{%- set sprat = namespace(messages=[], text='', results='') -%}
{%- for message in messages -%}
{%- if message.role == 'tool' and sprat_rewrites_results -%}
{%- set sprat.results = sprat.results + ('\\n' if sprat.results else '') + '<tool_response>\\n' + message.content -%}
{%- set sprat.results = sprat.results + '\\n</tool_response>' -%}
{%- else -%}
{%- if sprat.results -%}
{%- set sprat.messages = sprat.messages + [{'role': 'user', 'content': sprat.results}] -%}
{%- set sprat.results = '' -%}
{%- endif -%}
{%- if message.tool_calls -%}
{%- set sprat.text = (message.content or '') + sprat_opening -%}
{%- for call in message.tool_calls -%}
{%- if not loop.first -%}{%- set sprat.text = sprat.text + sprat_between -%}{%- endif -%}
{%- set sprat.text = sprat.text + sprat_before_name + call.function.name + sprat_after_name -%}
{%- set sprat.text = sprat.text + call.function.arguments + sprat_after_arguments -%}
{%- endfor -%}
{%- set sprat.messages = sprat.messages + [{'role': 'assistant', 'content': sprat.text + sprat_closing}] -%}
{%- else -%}
{%- set sprat.messages = sprat.messages + [message] -%}
{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if sprat.results -%}
{%- set sprat.messages = sprat.messages + [{'role': 'user', 'content': sprat.results}] -%}
{%- endif -%}
{%- set messages = sprat.messages -%}
"""
_INTRO = "## Tools\nYou can call the following functions:"
_OUTRO = (
    "\n\nTo call a function, answer in exactly this format, with its name for NAME and a JSON object of its parameters "
    "for ARGUMENTS:\n{example}\n{several}Otherwise, answer in plain text."
)
_SEVERAL = "For several calls, repeat {what}.\n"

_CALL: dict[str, Any] = {"id": "call12345", "type": "function", "function": {"name": "probe_tool"}}
_TOOL = {"type": "function", "function": {"name": "probed", "description": "d", "parameters": {"type": "object"}}}
_USER = {"role": "user", "content": "hi"}


class TemplateTools(msgspec.Struct, frozen=True):
    """Tool support of a chat template, with the prelude for the missing parts.

    Attributes:
        format: how the model writes calls.
        prelude: Jinja source before the template.
        parsed_arguments: whether the template takes arguments as objects, not as JSON text.
    """

    format: ToolFormat
    prelude: str
    parsed_arguments: bool


@functools.lru_cache(maxsize=16)
def template_tools(source: str) -> TemplateTools:
    """The tool support of the template of this source, found by rendering small conversations with it."""
    native = format_of(source)
    template = ChatTemplate(source, {"bos_token": "", "eos_token": ""})
    describes = native is not None and "probed" in _rendered(template, [_USER], [_TOOL])
    written = _written_arguments(template) if native is not None else None
    has_results = native is not None and "probe_result" in _rendered(template, _history('{"probe_key": 1}'))
    used = native or FALLBACK
    prelude = "" if describes else _with(_DESCRIBE, intro=_INTRO, outro=_outro(used))
    if written is None:
        prelude += _with(
            _REWRITE,
            rewrites_results=not has_results,
            opening=used.opening,
            between=used.between or "\n",
            before_name=used.before_name,
            after_name=used.after_name,
            after_arguments=used.after_arguments,
            closing=used.closing,
        )
    return TemplateTools(used, prelude, parsed_arguments=written == "object")


def _written_arguments(template: ChatTemplate) -> str | None:
    """Format of the arguments of past calls that the template writes unchanged; ``None`` if it writes none."""
    for kind, arguments in (("text", '{"probe_key": 1}'), ("object", {"probe_key": 1})):
        text = _rendered(template, _history(arguments))
        if "probe_tool" in text and '"probe_key": 1' in text:
            return kind
    return None


def _history(arguments: Any) -> list[dict[str, Any]]:
    call = {**_CALL, "function": {**_CALL["function"], "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "call12345", "name": "probe_tool", "content": "probe_result"}
    return [_USER, {"role": "assistant", "content": "", "tool_calls": [call]}, result]


def _rendered(template: ChatTemplate, messages: list[dict[str, Any]], tools: Sequence[Any] | None = None) -> str:
    """``messages`` rendered by the template; empty where it fails."""
    try:
        return template.render(messages, tools=tools)
    except (TemplateError, PromptError):
        return ""


def _outro(used: ToolFormat) -> str:
    what = "all of it but the first and the last token" if used.opening else "the format"
    return _OUTRO.format(example=used.example(), several="" if used.between is None else _SEVERAL.format(what=what))


def _with(source: str, **values: str | bool) -> str:
    """``source`` after the variables that it reads, as literals: JSON's escapes are Jinja's, too."""
    names = (
        f"{{%- set sprat_{name} = {json.dumps(value, ensure_ascii=False)} -%}}\n" for name, value in values.items()
    )
    return "".join(names) + source
