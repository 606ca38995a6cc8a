"""The notation for lists of phrases: several on a line, separated by bars."""

from __future__ import annotations

__all__ = ["phrases"]


def phrases(text: str) -> tuple[str, ...]:
    """Split ``text`` into phrases at ``|`` and at line ends.

    Example:
        >>> phrases("turn on {device} | switch {device} on")
        ('turn on {device}', 'switch {device} on')
    """
    found = (phrase.strip() for line in text.splitlines() for phrase in line.split("|"))
    return tuple(phrase for phrase in found if phrase)
