"""The filters of a chat template: Jinja's and those of transformers, each bounded by the size of what it is given."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jinja2
import jinja2.filters
import jinja2.tests
from jinja2.nodes import EvalContext
from jinja2.runtime import Context

from sprat.runtime.chat.budget import MAX_ENTRIES, MAX_VALUE_SIZE, rendering, size_of, too_large
from sprat.runtime.chat.text_format import format_percent, text_of
from sprat.runtime.chat.text_methods import TEXT_METHODS, join, repeat, replace, strip
from sprat.runtime.chat.tracked_text import TrackedStr, as_input, concat, is_tracked, mask_of, tracked

__all__ = ["escape", "filters", "tests"]

# Jinja's own, by what bounds them
_ITEMS = "batch groupby list map max min reject rejectattr select selectattr slice sort unique"  # iterate over a string
_TEXT = "pprint striptags title truncate urlencode urlize wordcount wordwrap xmlattr"  # make text
_OTHERS = "abs attr count d default dictsort filesizeformat first float int items last length random reverse"

_MAX_TEXT_SIZE = 1 << 16  # characters for ``_TEXT``: some take quadratic time, or run Python code for each word
_MAX_SETTING_SIZE = 1 << 8  # of their other arguments, which they may repeat for each word
_MAX_INDENT = 64
_MAX_DIGITS = 400  # before or after the point: no float has more
_ESCAPES = {"&": "&amp;", ">": "&gt;", "<": "&lt;", "'": "&#39;", '"': "&#34;"}


def filters() -> dict[str, Callable[..., Any]]:
    """Name -> filter."""
    jinjas = jinja2.filters.FILTERS
    found: dict[str, Callable[..., Any]] = {name: jinjas[name] for name in _OTHERS.split()}
    found |= {name: _bounded_items(jinjas[name]) for name in _ITEMS.split()}
    found |= {name: _bounded_text(jinjas[name]) for name in _TEXT.split()}
    found |= {name: _method(TEXT_METHODS[name]) for name in ("capitalize", "lower", "upper")}
    found |= {
        "center": lambda value, width=80: TEXT_METHODS["center"](text_of(value), width),
        "e": escape,
        "escape": escape,
        "forceescape": lambda value: escape(text_of(value)),
        "format": _format,
        "indent": _indent,
        "join": _join,
        "replace": _replace,
        "round": _round,
        "safe": lambda value: value if hasattr(value, "__html__") else _marked(text_of(value)),
        "string": lambda value: value if isinstance(value, str) else text_of(value),
        "sum": _sum,
        "tojson": _tojson,
        "trim": lambda value, chars=None: strip(text_of(value), chars),
    }
    return {name: _metered(function) for name, function in found.items()}


def tests() -> dict[str, Callable[..., Any]]:
    """Name -> test (``is``): Jinja's, charged for what they compare."""
    jinjas: dict[str, Any] = dict(jinja2.tests.TESTS)
    return {name: _read(function) for name, function in jinjas.items()}


def _read(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        for value in _values(args, kwargs):
            rendering.get().read(value)
        return function(*args, **kwargs)

    return metered


def escape(value: Any) -> str:
    """``value`` with HTML's special characters escaped, marked as HTML; unchanged if it is marked already."""
    if hasattr(value, "__html__"):
        return str(value.__html__())
    text = text_of(value)
    for char, entity in _ESCAPES.items():
        text = replace(text, char, entity)
    return _marked(text)


def _marked(text: str) -> str:
    """``text``, marked as HTML."""
    return tracked(text, mask_of(text), markup=True)


def _metered(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, charged for its arguments and its result; the items of a lazy result are charged as they come."""

    @functools.wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        budget = rendering.get()
        budget.step(sum(len(value) for value in args if isinstance(value, str | list | tuple | dict)))
        result = function(*args, **kwargs)
        return _charged(result) if isinstance(result, Iterator) else budget.checked(result)

    return metered


def _charged(values: Iterator[Any]) -> Iterator[Any]:
    for value in values:
        rendering.get().entries()
        yield value


def _bounded_items(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that iterates over its value, or makes as many items as an argument says."""

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        for value in _values(args, kwargs):
            count = len(value) if isinstance(value, str) else value
            if isinstance(count, int) and count > MAX_ENTRIES:
                raise too_large()
        return function(*args, **kwargs)

    return bounded


def _bounded_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that makes text; it counts as input if an argument does."""

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        value, *settings = values = _values(args, kwargs)
        if size_of(value) > _MAX_TEXT_SIZE or any(size_of(setting) > _MAX_SETTING_SIZE for setting in settings):
            raise too_large()
        result = function(*args, **kwargs)
        is_new = isinstance(result, str) and not isinstance(result, TrackedStr)
        return as_input(str(result)) if is_new and any(map(is_tracked, values)) else result

    return bounded


def _values(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments of a filter, without those that Jinja adds."""
    return [
        value
        for value in (*args, *kwargs.values())
        if not isinstance(value, jinja2.Environment | Context | EvalContext)
    ]


def _method(method: Callable[..., str]) -> Callable[..., str]:
    return lambda value: method(text_of(value))


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise TypeError("can't handle positional and keyword arguments at the same time")
    return format_percent(text_of(value), kwargs or args)


def _indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = repeat(" ", width) if isinstance(width, int) else text_of(width)
    lines = TEXT_METHODS["splitlines"](concat((text_of(text), "\n")))
    rendering.get().reserve(len(lines) * len(margin))
    kept = [line if not line and not blank else concat((margin, line)) for line in lines]
    return join("\n", [concat((margin, lines[0])) if first else lines[0], *kept[1:]])


@jinja2.pass_environment
def _join(
    environment: jinja2.Environment, values: Iterable[Any], d: Any = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        values = map(jinja2.filters.make_attrgetter(environment, attribute), values)
    return join(text_of(d), map(text_of, values))


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    return replace(text_of(value), text_of(old), text_of(new), -1 if count is None else count)


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if method != "common" and abs(precision) > _MAX_DIGITS:
        raise OverflowError(f"the filter round has precision {precision}, expected -{_MAX_DIGITS} to {_MAX_DIGITS}")
    rounded: float = jinja2.filters.do_round(value, max(-_MAX_DIGITS, min(precision, _MAX_DIGITS)), method)  # type: ignore[arg-type]  # a template's string
    return rounded


@jinja2.pass_context
def _sum(context: Context, values: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
    if isinstance(start, str):
        raise TypeError("sum() can't sum strings [use ''.join(seq) instead]")
    if attribute is not None:
        values = map(jinja2.filters.make_attrgetter(context.environment, attribute), values)
    for value in values:
        start = context.environment.call_binop(context, "+", start, value)  # type: ignore[attr-defined]  # a sandbox
    return start


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Like the filter of transformers: without the HTML escapes of Jinja's own."""
    if indent is not None and (len(indent) if isinstance(indent, str) else indent) > _MAX_INDENT:
        raise too_large()
    if any(len(separator) > _MAX_INDENT for separator in separators or ()):
        raise too_large()
    size_of(value)
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    chunks, size = [], 0
    for chunk in encoder.iterencode(value):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_VALUE_SIZE:
            raise too_large()
    text = "".join(chunks)
    return as_input(text) if is_tracked(value) else text
