"""How the tasks write down their phrases: many on a line, as one reads them."""

from __future__ import annotations

__all__ = ["phrases"]


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of `text`, which are separated by ``|`` or by line ends.

    Example:
        >>> phrases("turn on {device} | switch {device} on")
        ('turn on {device}', 'switch {device} on')
    """
    found = (phrase.strip() for line in text.splitlines() for phrase in line.split("|"))
    return tuple(phrase for phrase in found if phrase)
