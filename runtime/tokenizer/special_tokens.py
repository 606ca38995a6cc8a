"""Finding special tokens in text: the structure of a prompt, as opposed to what someone typed."""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping

__all__ = ["SpecialTokens"]


class SpecialTokens:
    """The texts of special tokens, found leftmost and longest first.

    Not one regular expression of them all: that takes Python half a millisecond per token to compile.

    Args:
        ids: Token id by text.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = ids
        self._sorted = sorted(ids)
        self._lengths = sorted({len(text) for text in ids}, reverse=True)
        self._first = re.compile(f"[{re.escape(''.join({text[:1] for text in ids}))}]" if ids else "(?!)")

    def split(self, text: str) -> list[str | int]:
        """``text`` cut at special tokens: their ids, and the stretches of plain text between them."""
        parts: list[str | int] = []
        begin = at = 0
        while match := self._first.search(text, at):
            at = match.start()
            token = next((text[at : at + n] for n in self._lengths if text[at : at + n] in self._ids), "")
            if token:
                parts += [text[begin:at], self._ids[token]]
                begin = at + len(token)
            at += len(token) or 1
        return [part for part in [*parts, text[begin:]] if part != ""]

    def may_begin_in(self, text: str) -> bool:
        """Whether ``text`` ends like the beginning of a special token."""
        longest = min(self._lengths[0], len(text)) if self._lengths else 0
        return any(self._continues(text[-n:]) for n in range(1, longest + 1))

    def _continues(self, beginning: str) -> bool:
        """Whether a special token begins like this and goes on."""
        at = bisect.bisect_right(self._sorted, beginning)
        return at < len(self._sorted) and self._sorted[at].startswith(beginning)
