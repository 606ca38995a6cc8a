"""Keywords of public functions: an unknown one is an error that names the function and the nearest keyword."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, ParamSpec, TypeVar

from sprat.errors import unknown_name

__all__ = ["check_known", "checks_keywords", "record_of"]

P = ParamSpec("P")
R = TypeVar("R")

# What transformers, llama.cpp, Ollama and OpenAI call the same thing.
_ELSEWHERE = {
    "cache_type": "cache",
    "cache_type_k": "cache",
    "ctx_size": "context",
    "function_call": "tool_choice",
    "functions": "tools",
    "grammar": "response_format",
    "guided_choice": "response_format",
    "guided_json": "response_format",
    "json_schema": "response_format",
    "max_completion_tokens": "max_tokens",
    "max_length": "max_tokens",
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "model_path": "path",
    "n_batch": "batch",
    "n_ctx": "context",
    "n_predict": "max_tokens",
    "n_threads": "threads",
    "num_ctx": "context",
    "num_predict": "max_tokens",
    "outfile": "out",
    "outtype": "quant",
    "quantization": "quant",
    "repetition_penalty": "repeat_penalty",
    "stop_strings": "stop",
    "temp": "temperature",
    "thinking_budget": "max_thinking_tokens",
    "typical": "typical_p",
}


def check_known(function: str, keywords: Iterable[str], known: Iterable[str]) -> None:
    """Check that ``function`` has all ``keywords``.

    Raises:
        TypeError: it does not have one; the message has the nearest one that it has.

    Example:
        >>> check_known("generate()", ["max_new_tokens"], ["max_tokens", "top_k"])
        Traceback (most recent call last):
        TypeError: generate(): unknown keyword 'max_new_tokens'; did you mean 'max_tokens'? (known: max_tokens, top_k)
    """
    known = list(known)
    for name in keywords:
        if name not in known:
            elsewhere = {other: keyword for other, keyword in _ELSEWHERE.items() if keyword in known}
            raise TypeError(f"{function}: {unknown_name('keyword', name, known, elsewhere)}")


def record_of(kind: type[R], function: str, keywords: Mapping[str, Any]) -> R:
    """The record ``kind``, a dataclass, of the keyword arguments that ``function`` was called with.

    Raises:
        TypeError: as :func:`check_known`, for a keyword that is no field.
    """
    check_known(function, keywords, [field.name for field in fields(kind)])  # type: ignore[arg-type]
    return kind(**keywords)


def checks_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator: an unknown keyword is the error of :func:`check_known` instead of Python's own message.

    A function that takes any keyword is left alone.

    Raises:
        TypeError: in the decorated function, for an unknown keyword.
    """
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return function
    known = [name for name in parameters if name not in {"self", "cls"}]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        check_known(f"{function.__qualname__}()", kwargs, known)
        return function(*args, **kwargs)

    return checked
