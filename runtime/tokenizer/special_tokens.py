"""Finding special tokens in text."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Mapping

from sprat.runtime.tokenizer.added_tokens import AddedToken

__all__ = ["SpecialTokens"]

_WORD = re.compile(r"\w")


class SpecialTokens:
    """Splits text at special tokens: the leftmost match first, and the longest of those that begin at one place.

    No regular expression of all tokens: Python would take half a millisecond per token to compile it.

    Args:
        ids: text of each special token -> id.
        added: tokens whose flags ``lstrip``, ``rstrip`` and ``single_word`` apply, as in ``tokenizers``.
    """

    def __init__(self, ids: Mapping[str, int], added: Iterable[AddedToken] = ()) -> None:
        self._ids = ids
        self._flagged = {token.text: token for token in added if token.has_flags and token.text in ids}
        self._sorted = sorted(ids)
        self._lengths = sorted({len(text) for text in ids}, reverse=True)
        self._first = re.compile(f"[{re.escape(''.join({text[:1] for text in ids}))}]" if ids else "(?!)")

    def split(self, text: str) -> list[str | int]:
        """Split ``text`` at special tokens: token ids, and the plain text between them."""
        parts: list[str | int] = []
        start = at = 0
        while match := self._first.search(text, at):
            at = match.start()
            token = next((text[at : at + n] for n in self._lengths if text[at : at + n] in self._ids), "")
            end = at + len(token)
            if token and self._stands_alone(token, text[at - 1 : at], text[end : end + 1]):
                before, end = self._strip(token, text[start:at], text, end)
                parts += [before, self._ids[token]]
                start = end
            at = end if token else at + 1
        return [part for part in [*parts, text[start:]] if part != ""]

    def ends_with_prefix(self, text: str) -> bool:
        """Whether ``text`` ends with a proper prefix of a special token."""
        longest = min(self._lengths[0], len(text)) if self._lengths else 0
        return any(self._is_proper_prefix(text[-n:]) for n in range(1, longest + 1))

    def _is_proper_prefix(self, prefix: str) -> bool:
        at = bisect.bisect_right(self._sorted, prefix)
        return at < len(self._sorted) and self._sorted[at].startswith(prefix)

    def _stands_alone(self, token: str, before: str, after: str) -> bool:
        """Whether ``single_word``, if the token has it, allows the characters beside it."""
        flags = self._flagged.get(token)
        return flags is None or not flags.single_word or not (_WORD.match(before) or _WORD.match(after))

    def _strip(self, token: str, before: str, text: str, end: int) -> tuple[str, int]:
        """The text ``before`` the token, and where the text after it begins, without whitespace that belongs to it."""
        flags = self._flagged.get(token)
        if flags is None:
            return before, end
        stripped = before.rstrip() if flags.lstrip else before
        return stripped, len(text) - len(text[end:].lstrip()) if flags.rstrip else end
