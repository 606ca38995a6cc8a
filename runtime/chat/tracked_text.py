"""Strings that know which of their characters come from the input of a template (taint tracking).

A special token in a rendered prompt is the template's if none of its characters come from a message, a tool or a
variable. The template itself sees ordinary text: tracked strings compare, hash and print like ``str``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsIndex

from markupsafe import Markup

__all__ = ["TrackedStr", "as_input", "concat", "is_tracked", "mask_of", "resized", "tracked", "unmarked"]

_INPUT = b"\1"


class TrackedStr(str):
    """Text of which at least one character comes from the input.

    Args:
        text: the characters.
        mask: one byte per character: 1 if it comes from the input, 0 if it is the template's.
    """

    mask: bytes
    __slots__ = ("mask",)

    def __new__(cls, text: str, mask: bytes) -> TrackedStr:
        """Make the string."""
        made = super().__new__(cls, text)
        made.mask = mask
        return made

    def __str__(self) -> str:
        return self

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        found = self.mask[key]
        return tracked(str.__getitem__(self, key), found if isinstance(found, bytes) else bytes([found]))

    def __iter__(self) -> Iterator[str]:
        return (tracked(char, bytes([origin])) for char, origin in zip(str.__iter__(self), self.mask, strict=True))


class TrackedMarkup(TrackedStr):
    """Tracked text that Jinja's filters ``safe`` and ``escape`` have marked as HTML."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def tracked(text: str, mask: bytes, *, markup: bool = False) -> str:
    """``text`` with its ``mask``: a plain string if no character comes from the input."""
    if _INPUT in mask:
        return (TrackedMarkup if markup else TrackedStr)(text, mask)
    return Markup(text) if markup else str(text)


def as_input(text: str) -> str:
    """``text`` with all its characters from the input."""
    return TrackedStr(text, _INPUT * len(text)) if text else ""


def mask_of(text: str) -> bytes:
    """The mask of any string."""
    return text.mask if isinstance(text, TrackedStr) else bytes(len(text))


def unmarked(text: str) -> str:
    """``text`` as ``str(text)`` gives it: no longer marked as HTML."""
    if isinstance(text, TrackedMarkup):
        return TrackedStr(text, text.mask)
    return text if isinstance(text, TrackedStr) else str(text)


def resized(text: str, source: str) -> str:
    """``text``, made from ``source`` by an operation that may change the number of characters.

    When it does, all characters count as input if one of ``source`` does.
    """
    if not isinstance(source, TrackedStr):
        return text
    return tracked(text, source.mask) if len(text) == len(source) else as_input(text)


def concat(parts: Iterable[str], separator: str = "") -> str:
    """``separator.join(parts)``."""
    texts = list(parts)
    joined = str.join(separator, texts)
    if not isinstance(separator, TrackedStr) and not any(isinstance(text, TrackedStr) for text in texts):
        return str(joined)
    return tracked(joined, mask_of(separator).join(map(mask_of, texts)))


def is_tracked(value: Any) -> bool:
    """Whether ``value``, or an item of it, holds a character from the input."""
    if isinstance(value, str):
        return isinstance(value, TrackedStr)
    if isinstance(value, Mapping):
        return any(is_tracked(key) or is_tracked(item) for key, item in value.items())
    return isinstance(value, list | tuple) and any(map(is_tracked, value))
