"""Arguments of public functions against their annotations, so that a wrong type is named where it was passed."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any

from sprat.errors import InputError

__all__ = ["check_arguments"]

_SHOWN = 60  # characters of a value in a message


def check_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Compare the arguments of a call with the annotations of ``function``; what cannot be checked passes.

    Raises:
        InputError: an argument has another type.
    """
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return  # one is missing or unknown: the call itself says which
    wanted = _annotations(function)
    for name, value in {**bound.arguments, **bound.kwargs}.items():
        if name in wanted and not _is_a(value, wanted[name]):
            shown = repr(value)
            found = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
            raise InputError(f"{name} is {found} ({type(value).__name__}), expected {_text(wanted[name])}")


@functools.cache
def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Parameter -> type, with the keys of a TypedDict for ``**keywords``; without those that only checkers import."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        wanted = _evaluated(parameter.annotation, function)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            for record in typing.get_args(wanted):
                found |= typing.get_type_hints(record)
        elif wanted is not None:
            found[name] = wanted
    return found


def _evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    if not isinstance(annotation, str):
        return None if annotation is inspect.Parameter.empty else annotation
    try:
        return eval(annotation, function.__globals__)  # written in sprat itself
    except (NameError, AttributeError):
        return None  # imported for type checkers only


def _is_a(value: Any, wanted: Any) -> bool:
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in {types.UnionType, typing.Union}:
        return any(_is_a(value, one) for one in inner)
    if origin is typing.Literal:
        return isinstance(value, str)  # which of the names is for the function to say
    if wanted is None or wanted is types.NoneType:
        return value is None
    if wanted in {int, float}:
        return isinstance(value, Integral if wanted is int else Real) and not isinstance(value, bool)
    if origin is Sequence:
        return _is_sequence(value, inner)
    plain = origin or wanted
    return isinstance(value, PathLike) if plain is PathLike else not isinstance(plain, type) or isinstance(value, plain)


def _is_sequence(value: Any, inner: tuple[Any, ...]) -> bool:
    """Any iterable but a string, which would be taken apart; the items of a list or tuple are checked."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return False
    return not isinstance(value, list | tuple) or all(_is_a(item, inner[0]) for item in value)


def _text(wanted: Any) -> str:
    """The annotation as people write it."""
    text = wanted.__name__ if isinstance(wanted, type) and not typing.get_args(wanted) else str(wanted)
    return text.replace("collections.abc.", "").replace("typing.", "")
