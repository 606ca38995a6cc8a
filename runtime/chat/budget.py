"""The budget of one rendering of a chat template: units for steps and text, and a limit on CPU time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sprat.errors import TemplateError

__all__ = ["MAX_VALUE_SIZE", "Budget", "plain"]

MAX_VALUE_SIZE = 1 << 21  # characters of one value; an object that it holds twice counts twice
_UNITS = 1 << 26  # one per character that is made; each loop iteration and each call costs some, too
_UNITS_PER_STEP = 512
_SECONDS = 5.0  # CPU time of this thread, which does not depend on the load of the machine
_ENTRY = 16  # units of an entry of a list or dict, in addition to its size
_MAX_DEPTH = 64  # of nested calls, and of nested data


class Budget:
    """What remains for the rendering of one prompt.

    Sizes bound memory and steps bound time, the same on every machine. The limit on CPU time covers the rest.
    """

    def __init__(self) -> None:
        self._left = _UNITS
        self._deadline = time.thread_time() + _SECONDS
        self._depth = 0

    def charge(self, units: int) -> None:
        """Subtract ``units``.

        Raises:
            TemplateError: the budget is exhausted.
        """
        self._left -= units
        if self._left < 0 or time.thread_time() > self._deadline:
            raise TemplateError(
                "the chat template was stopped: it loops too long, or makes far more text than a prompt holds; "
                "use the template of the model's publisher"
            )

    def step(self, text: int = 0) -> bool:
        """Charge one step that writes ``text`` literal characters of the template; true, for use in a condition."""
        self.charge(_UNITS_PER_STEP + text)
        return True

    def checked(self, value: Any) -> Any:
        """Charge the size of ``value``, and return it.

        Raises:
            TemplateError: it is larger than :data:`MAX_VALUE_SIZE`, or the budget is exhausted.
        """
        self.charge(_size(value, MAX_VALUE_SIZE))
        return value

    def __enter__(self) -> None:
        """Enter a nested call.

        Raises:
            TemplateError: calls are nested too deep.
        """
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise TemplateError(f"the chat template was stopped: its calls are nested more than {_MAX_DEPTH} deep")

    def __exit__(self, *_: object) -> None:
        self._depth -= 1


def too_large() -> TemplateError:
    """The error for a value larger than :data:`MAX_VALUE_SIZE`."""
    return TemplateError(f"the chat template was stopped: it makes a value of more than {MAX_VALUE_SIZE} characters")


def plain(value: Any, depth: int = 0) -> Any:
    """A copy of ``value`` made of dicts, lists, strings, numbers, booleans and None only.

    Raises:
        TemplateError: ``value`` holds another type, or is nested too deep.
    """
    if depth > _MAX_DEPTH:
        raise TemplateError(f"a message is nested more than {_MAX_DEPTH} deep, expected a dict with role and content")
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    raise TemplateError(
        f"found a {type(value).__name__} in the messages or variables of a chat template, expected strings, numbers, "
        "booleans, lists and dicts"
    )


def _size(value: Any, limit: int) -> int:
    """Characters of ``value`` as text; an error when they exceed ``limit``."""
    if isinstance(value, str):
        size = len(value)
    elif isinstance(value, Mapping):
        size = _sizes([*value.keys(), *value.values()], limit)
    elif isinstance(value, list | tuple):
        size = _sizes(value, limit)
    else:
        size = limit + 1 if isinstance(value, int) and value.bit_length() > 64 else 1
    if size > limit:
        raise too_large()
    return size


def _sizes(values: list[Any] | tuple[Any, ...], limit: int) -> int:
    size = 0
    for value in values:
        size += _ENTRY + _size(value, limit - size)
        if size > limit:
            raise too_large()
    return size
