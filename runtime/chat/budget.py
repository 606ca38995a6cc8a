"""The budget of one rendering of a chat template: units for steps and text, and a limit on CPU time."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import Any

from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.utils import Namespace

from sprat.errors import TemplateError

__all__ = ["MAX_ENTRIES", "MAX_VALUE_SIZE", "Budget", "rendering", "size_of", "too_large"]

MAX_VALUE_SIZE = 1 << 21  # characters of one value; an object that it holds twice counts twice
_ENTRY = 16  # units of an entry of a list or dict, in addition to its size
MAX_ENTRIES = MAX_VALUE_SIZE // _ENTRY
_UNITS = 1 << 26  # one per character that is made; each loop iteration and each call costs some, too
_UNITS_PER_STEP = 512
_CHARS_PER_UNIT = 64  # that are compared or searched in the time in which one is made
_SECONDS = 5.0  # CPU time of this thread, which does not depend on the load of the machine
_MAX_DEPTH = 64  # of nested calls
_MAX_BITS = 1 << 13  # of an integer; Python prints up to 4,300 digits
_PRINTED_TYPES = (str, int, float, complex, type(None), range, Undefined, LoopContext, Macro)
_VIEWS: tuple[type[Collection[Any]], ...] = (type({}.keys()), type({}.values()), type({}.items()))


class Budget:
    """Remaining budget for rendering one prompt.

    Sizes bound memory and steps bound time, the same on every machine. The limit on CPU time covers the rest. It is
    checked between operations, so each operation is bounded by the size of its operands.
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

    def reserve(self, size: int) -> None:
        """Charge a value of ``size`` characters before it is made.

        Raises:
            TemplateError: it is larger than :data:`MAX_VALUE_SIZE`, or the budget is exhausted.
        """
        if size > MAX_VALUE_SIZE:
            raise too_large()
        self.charge(max(size, 0))

    def reserve_bits(self, bits: int) -> None:
        """Check the size of an integer before it is made; errors as for :meth:`reserve`."""
        if bits > _MAX_BITS:
            raise too_large()
        self.charge(max(bits, 0))

    def entries(self, count: int = 1) -> None:
        """Charge ``count`` entries of a list before it is made; errors as for :meth:`reserve`."""
        self.reserve(_ENTRY * count)

    def checked(self, value: Any) -> Any:
        """Charge a value that was made, and return it. Of a container, its entries are charged, not their text.

        Raises:
            TemplateError: it is larger than :data:`MAX_VALUE_SIZE`, or the budget is exhausted.
        """
        if isinstance(value, str):
            self.reserve(len(value))
        else:
            _, entries = _measure(value, printed=False)
            self.charge(1 + _ENTRY * entries)
        return value

    def read(self, value: Any) -> Any:
        """Charge a comparison, search or hash of ``value``, and return it.

        Raises:
            TemplateError: the budget is exhausted.
        """
        if isinstance(value, str):
            self.charge(len(value) // _CHARS_PER_UNIT)
        elif isinstance(value, range):
            self.charge(len(value))
        else:
            self.checked(value)
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


rendering: ContextVar[Budget] = ContextVar("rendering")  # budget of the rendering in this thread


def too_large() -> TemplateError:
    """The error for a value larger than :data:`MAX_VALUE_SIZE`."""
    return TemplateError(f"the chat template was stopped: it makes a value of more than {MAX_VALUE_SIZE} characters")


def size_of(value: Any) -> int:
    """Characters of ``value`` as text, about.

    Raises:
        TemplateError: it is larger than :data:`MAX_VALUE_SIZE`, or of a type whose text is an address in memory.
    """
    return _measure(value, printed=True)[0]


def _measure(value: Any, *, printed: bool, limit: int = MAX_VALUE_SIZE) -> tuple[int, int]:
    """Characters and entries of ``value``; an error when they exceed ``limit``.

    Args:
        value: the value.
        printed: refuse what Python prints with its address.
        limit: characters; an entry counts as several.
    """
    if isinstance(value, str):
        size, entries = len(value), 0
    elif isinstance(value, int):
        size, entries = 1 + value.bit_length() // 3 if value.bit_length() <= _MAX_BITS else limit + 1, 0
    elif (items := _items(value, printed=printed)) is not None:
        size, entries = 0, len(items)
        if entries * _ENTRY > limit:
            raise too_large()
        for item in items:
            item_size, item_entries = _measure(item, printed=printed, limit=limit - size - _ENTRY)
            size, entries = size + item_size + _ENTRY, entries + item_entries
    else:
        size, entries = _leaf(value, printed=printed), 0
    if size > limit:
        raise too_large()
    return size, entries


def _items(value: Any, *, printed: bool) -> list[Any] | None:
    """The items of a container; ``None`` if it is none."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, _VIEWS):
        return list(value) if printed else []
    if isinstance(value, Namespace) and printed:
        return list(value._Namespace__attrs.items())  # noqa: SLF001  # Jinja has no public access
    return None


def _leaf(value: Any, *, printed: bool) -> int:
    if printed and not isinstance(value, _PRINTED_TYPES):
        raise TemplateError(
            f"the chat template writes a {type(value).__name__}, expected text, a number, a list or a dict; "
            "call the function, or apply the filter 'list' to a sequence"
        )
    return 32
