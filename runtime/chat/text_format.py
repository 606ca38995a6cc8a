"""``'%s' % value`` and ``'{}'.format(value)``: one field at a time, bounded in width, keeping track of the input."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any

from jinja2.sandbox import SandboxedEnvironment, SandboxedFormatter

from sprat.errors import TemplateError
from sprat.runtime.chat.budget import rendering, size_of
from sprat.runtime.chat.text_methods import join
from sprat.runtime.chat.tracked_text import as_input, is_tracked, resized, unmarked

__all__ = ["format_braces", "format_percent", "text_of"]

_CONVERSION = re.compile(
    r"%(?:\((?P<key>[^()]*)\))?(?P<flags>[-#0 +]*)(?P<width>\d*)(?P<precision>\.\d*)?[hlL]?(?P<type>.)", re.DOTALL
)
_CONVERSIONS: dict[str, Callable[[Any], str]] = {"s": str, "r": repr, "a": ascii}
_MAX_WIDTH_DIGITS = 4


def text_of(value: Any) -> str:
    """``str(value)``, for values whose text does not hold addresses.

    Raises:
        TemplateError: the text of ``value`` would be an address in memory, or is too large.
    """
    if isinstance(value, str):
        return unmarked(value)
    rendering.get().charge(size_of(value))
    return as_input(str(value)) if is_tracked(value) else str(value)


def format_percent(text: str, values: Any) -> str:
    """``text % values``."""
    return join("", _percent_parts(text, values))


def _percent_parts(text: str, values: Any) -> Iterator[str]:
    at = used = 0
    positional = values if isinstance(values, tuple) else (values,)
    for found in _CONVERSION.finditer(text):
        yield text[at : found.start()]
        at = found.end()
        if found["type"] == "%":
            yield "%"
            continue
        if found["key"] is not None:
            value = values[found["key"]]
        elif used < len(positional):
            value, used = positional[used], used + 1
        else:
            raise TypeError("not enough arguments for format string")
        _check_width(found["width"] + (found["precision"] or ""))
        yield _percent(f"%{found['flags']}{found['width']}{found['precision'] or ''}{found['type']}", value)
    if "%" in text[at:]:
        raise ValueError("incomplete format")
    if used < len(positional) and (isinstance(values, tuple | str) or not hasattr(values, "__getitem__")):
        raise TypeError("not all arguments converted during string formatting")
    yield text[at:]


def _percent(conversion: str, value: Any) -> str:
    if conversion == "%s":
        return text_of(value)
    rendering.get().charge(size_of(value))
    formatted = str(conversion % (value,))
    return as_input(formatted) if is_tracked(value) else formatted


def format_braces(environment: SandboxedEnvironment, text: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """``text.format(*args, **kwargs)``; attributes are those that the sandbox allows."""
    return _Fields(environment, args, kwargs).format(text)


class _Fields:
    """The arguments of one call of ``str.format``."""

    def __init__(self, environment: SandboxedEnvironment, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._lookup = SandboxedFormatter(environment)
        self._args, self._kwargs = args, kwargs
        self._automatic = itertools.count()

    def format(self, text: str, depth: int = 2) -> str:
        """``text`` with its fields replaced; those in the format of a field, too."""
        if depth == 0:
            raise ValueError("Max string recursion exceeded")
        return join("", self._parts(text, depth))

    def _parts(self, text: str, depth: int) -> Iterator[str]:
        for literal, name, spec, conversion in Formatter().parse(text):
            rendering.get().step()
            yield as_input(literal) if is_tracked(text) else literal
            if name is not None:
                full_name = f"{next(self._automatic)}{name}" if name == "" or name[0] in ".[" else name
                value, _ = self._lookup.get_field(full_name, self._args, self._kwargs)
                yield _brace(value, conversion, self.format(spec, depth - 1) if spec else "")


def _brace(value: Any, conversion: str | None, spec: str) -> str:
    if not spec and conversion in {None, "s"}:
        return text_of(value)
    _check_width(spec)
    rendering.get().charge(size_of(value))
    shown = value if conversion is None else _CONVERSIONS[conversion](value)
    formatted = format(str.__str__(shown) if isinstance(shown, str) else shown, spec)
    return (
        resized(formatted, value) if isinstance(value, str) else as_input(formatted) if is_tracked(value) else formatted
    )


def _check_width(spec: str) -> None:
    if any(len(digits) > _MAX_WIDTH_DIGITS for digits in re.findall(r"\d+", spec)):
        raise TemplateError(f"the chat template formats with {spec[:40]!r}, expected a width below 10,000")
