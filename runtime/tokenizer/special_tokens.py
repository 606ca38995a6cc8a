"""Finding special tokens in text."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.added_tokens import AddedToken

__all__ = ["SpecialTokens"]

_MAX_SQUARES = 1 << 24  # sum of squared lengths, twice the characters of all prefixes: 1,000 tokens of 128 characters
_WORD = re.compile(r"\w")


class SpecialTokens:
    """Splits text at special tokens: the leftmost match first, and the longest of those that begin at one place.

    No regular expression of all tokens: Python would take half a millisecond per token to compile it. Instead, where a
    token may begin, the longest prefix of any token is searched by halving its length.

    Args:
        ids: text of each special token -> id.
        added: tokens whose flags ``lstrip``, ``rstrip`` and ``single_word`` apply, as in ``tokenizers``; one that is
            not special and holds a special token stays text, in one part.

    Raises:
        TokenizerError: the tokens are far longer than special tokens are.
    """

    def __init__(self, ids: Mapping[str, int], added: Collection[AddedToken] = ()) -> None:
        self._ids = ids
        self._flagged = {token.text: token for token in added if token.has_flags and token.text in ids}
        texts = [token.text for token in added if not (token.special or token.normalized or token.text in ids)]
        inner = SpecialTokens(ids) if ids and texts else None
        self._whole = frozenset(text for text in texts if inner and inner.split(text) != [text])
        self._known = frozenset({*ids, *self._whole})
        self._longest = max(map(len, self._known), default=0)
        if sum(len(text) ** 2 for text in self._known) > _MAX_SQUARES:
            raise TokenizerError(
                f"the {len(ids)} special tokens have up to {self._longest} characters, expected names of roles and "
                "turns; convert the model again"
            )
        first = "".join({text[:1] for text in self._known})
        self._first = re.compile(f"[{re.escape(first)}]" if first else "(?!)")

    def split(self, text: str) -> list[str | int]:
        """Split ``text`` at special tokens: token ids, and the plain text between them."""
        parts: list[str | int] = []
        start = at = 0
        while match := self._first.search(text, at):
            at = match.start()
            token = self._token_at(text, at)
            end = at + len(token)
            if token and token not in self._whole and self._stands_alone(token, text[at - 1 : at], text[end : end + 1]):
                before, end = self._strip(token, text[start:at], text, end)
                parts += [before, self._ids[token]]
                start = end
            at = end if token else at + 1
        return [part for part in [*parts, text[start:]] if part != ""]

    @functools.cached_property
    def _prefixes(self) -> dict[str, str]:
        """Each prefix of a token -> the longest token that it begins with, or ""."""
        longest = {"": ""}
        for text in sorted(self._known):
            for end in range(1, len(text) + 1):
                prefix = text[:end]
                longest[prefix] = prefix if prefix in self._known else longest[text[: end - 1]]
        return longest

    def _token_at(self, text: str, at: int) -> str:
        """The longest token that begins at ``at``, or ""."""
        prefixes = self._prefixes
        n_known, n_unknown = 0, min(self._longest, len(text) - at) + 1  # a prefix of a prefix is one, too
        while n_unknown - n_known > 1:
            n_chars = (n_known + n_unknown) // 2
            if text[at : at + n_chars] in prefixes:
                n_known = n_chars
            else:
                n_unknown = n_chars
        return prefixes[text[at : at + n_known]]

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
