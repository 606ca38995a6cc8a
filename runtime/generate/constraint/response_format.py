"""``response_format``: what the caller asks for, as a grammar of llguidance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sprat.errors import InputError, unknown_name

__all__ = ["JSON_OPTIONS", "grammar_of", "schema_text"]

# One space at most between tokens of JSON: models differ in it, and white space without limit never ends.
JSON_OPTIONS = {"whitespace_pattern": "[ ]?"}
_MAX_CHOICES = 10_000


def grammar_of(response_format: Mapping[str, Any] | None) -> str | None:
    """The grammar of a ``response_format``; ``None`` where any text is right.

    Raises:
        InputError: the type is unknown, or what it needs is missing or of another type.
        BackendError: llguidance is not installed.
    """
    if response_format is None:
        return None
    kind = response_format.get("type")
    if kind == "text":
        return None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"response_format: {unknown_name('type', str(kind), ['text', *_KINDS])}")
    return _KINDS[kind](response_format)


def _json_schema(asked: Mapping[str, Any]) -> str:
    """OpenAI's format, or the schema beside the type, as llama-server and the Responses API take it."""
    outer = asked.get("json_schema", asked)
    schema = outer.get("schema") if isinstance(outer, Mapping) else None
    if not isinstance(schema, Mapping):
        raise InputError(
            f"response_format has the schema {schema!r}, expected a JSON schema as a dict: "
            '{"type": "json_schema", "json_schema": {"schema": {"type": "object", ...}}}'
        )
    return _of_schema(schema)


def _json_object(_asked: Mapping[str, Any]) -> str:
    return _of_schema({"type": "object"})


def _of_schema(schema: Mapping[str, Any]) -> str:
    from sprat.runtime.generate.constraint.library import matcher_class

    text = schema_text(schema, "response_format")
    grammar: str = matcher_class().grammar_from_json_schema(text, overrides=JSON_OPTIONS)
    return grammar


def schema_text(schema: Mapping[str, Any], subject: str) -> str:
    """A JSON schema as text.

    Args:
        schema: plain data.
        subject: what has the schema, for messages.

    Raises:
        InputError: it holds something that JSON does not have.
    """
    try:
        return json.dumps(dict(schema), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{subject} has a schema that is not JSON ({error}); pass dicts, lists and text") from error


def _regex(asked: Mapping[str, Any]) -> str:
    from sprat.runtime.generate.constraint.library import matcher_class

    grammar: str = matcher_class().grammar_from_regex(_text(asked, "regex"))
    return grammar


def _lark(asked: Mapping[str, Any]) -> str:
    from sprat.runtime.generate.constraint.library import matcher_class

    grammar: str = matcher_class().grammar_from_lark(_text(asked, "grammar"))
    return grammar


def _choices(asked: Mapping[str, Any]) -> str:
    from sprat.runtime.generate.constraint.library import matcher_class

    choices = asked.get("choices")
    if not isinstance(choices, list | tuple) or not 0 < len(choices) <= _MAX_CHOICES or not all(map(_is_text, choices)):
        raise InputError(
            f"response_format has the choices {choices!r:.200}, expected a list of 1 to {_MAX_CHOICES:,} texts, "
            "none of them empty"
        )
    grammar: str = matcher_class().grammar_from_lark("start: " + " | ".join(map(json.dumps, choices)))
    return grammar


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _text(asked: Mapping[str, Any], name: str) -> str:
    text = asked.get(name)
    if not isinstance(text, str) or not text:
        raise InputError(f"response_format has the {name} {text!r}, expected it as text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"response_format has a {name} that is not valid Unicode ({error})") from error
    return text


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "json_schema": _json_schema,
    "json_object": _json_object,
    "regex": _regex,
    "grammar": _lark,
    "choices": _choices,
}
