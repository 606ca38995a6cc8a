"""What a chat template may spend: one number for work and text together, and a clock for slow machines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sprat.errors import TemplateError

__all__ = ["LONGEST_VALUE", "Budget", "plain"]

LONGEST_VALUE = 1 << 21  # characters of one value, everything inside it counted as often as it is reached
_UNITS = 1 << 26  # characters made; each step of a loop and each call costs some, too
_UNITS_PER_STEP = 512
_SECONDS = 5.0  # of this thread on a processor: a busy machine stops no template
_ENTRY = 16  # what an entry of a list or dict counts beside its own size
_DEPTH = 64  # nested calls; nested data


class Budget:
    """Counts down while one prompt is rendered.

    Sizes bound memory and steps bound time, the same on every machine; the clock is for what neither foresees.
    """

    def __init__(self) -> None:
        self._left = _UNITS
        self._deadline = time.thread_time() + _SECONDS
        self._depth = 0

    def charge(self, units: int) -> None:
        """Pay for ``units`` characters.

        Raises:
            TemplateError: there are none left.
        """
        self._left -= units
        if self._left < 0 or time.thread_time() > self._deadline:
            raise TemplateError(
                "The chat template was stopped: it runs without end, or makes far more text than a prompt holds. "
                "Use the template that the model's publisher wrote."
            )

    def step(self, text: int = 0) -> bool:
        """Pay for a step that writes ``text`` characters of the template itself; true, to stand in a condition."""
        self.charge(_UNITS_PER_STEP + text)
        return True

    def checked(self, value: Any) -> Any:
        """``value``, paid for by its size.

        Raises:
            TemplateError: it is larger than any part of a prompt.
        """
        self.charge(_size(value, LONGEST_VALUE))
        return value

    def __enter__(self) -> None:
        """One call deeper."""
        self._depth += 1
        if self._depth > _DEPTH:
            raise TemplateError(f"The chat template was stopped: its calls nest more than {_DEPTH} deep.")

    def __exit__(self, *_: object) -> None:
        self._depth -= 1


def too_large() -> TemplateError:
    """The error for a value that would be larger than any part of a prompt."""
    return TemplateError(f"The chat template was stopped: it makes a value of more than {LONGEST_VALUE} characters.")


def plain(value: Any, depth: int = 0) -> Any:
    """A copy of ``value`` of nothing but dicts, lists, strings, numbers, booleans and None.

    Raises:
        TemplateError: it holds anything else, or nests too deep.
    """
    if depth > _DEPTH:
        raise TemplateError(f"A message nests more than {_DEPTH} deep; expected a role and a content.")
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    raise TemplateError(
        f"A chat template cannot take a {type(value).__name__}; expected text, numbers, lists and dicts."
    )


def _size(value: Any, limit: int) -> int:
    """Characters of ``value`` if it were written out, at most ``limit``."""
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
