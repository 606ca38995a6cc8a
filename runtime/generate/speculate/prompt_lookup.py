"""``PromptLookup``: drafts from the prompt, the answer and earlier answers (prompt lookup decoding, Saxena 2023).

The last tokens are searched in what came before; what followed there is the draft. Code, and answers that quote their
prompt, repeat themselves; JSON commands repeat the keys of the last ones. Where a grammar prescribes the next tokens,
the draft begins with them, and the search goes on behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sprat.runtime.generate.speculate.drafter import Kind

__all__ = ["Forced", "History", "PromptLookup", "TokenIndex"]

Forced = Callable[[], Sequence[int]]
"""Tokens that a grammar prescribes next."""

_LENGTHS = (3, 2)  # of the searched tokens, the longest first
_MAX_STRENGTH = 8  # tokens that match; a longer match is no better
_HISTORY_TOKENS = 4096


class TokenIndex:
    """Finds the last occurrence of tokens in a sequence; the time does not depend on the sequence's length.

    Tokens are indexed when the next search needs them, so that those that nobody searches for cost next to nothing.

    Attributes:
        tokens: the sequence.
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.tokens = list(tokens)
        self._after: dict[tuple[int, ...], int] = {}  # tokens -> position after their last occurrence
        self._n_indexed = 0

    def feed(self, token: int) -> None:
        """Append a token."""
        self.tokens.append(token)

    def find(self, last: Sequence[int]) -> tuple[int, int]:
        """Longest earlier match of the end of ``last``: position of the token after it, and number of matched tokens.

        Of no match, both are 0; fewer than two tokens are none.
        """
        self._catch_up()
        for length in _LENGTHS:
            at = self._after.get(tuple(last[-length:]))
            if at is not None:
                n, longest = length, min(at, len(last), _MAX_STRENGTH)
                while n < longest and self.tokens[at - n - 1] == last[-n - 1]:
                    n += 1
                return at, n
        return 0, 0

    def _catch_up(self) -> None:
        """Index the tokens that a token follows; two threads at a time write the same."""
        tokens = self.tokens
        for end in range(self._n_indexed, len(tokens)):
            for n in _LENGTHS:
                if end >= n:
                    self._after[tuple(tokens[end - n : end])] = end
        self._n_indexed = len(tokens)


class History:
    """The last answers of an engine; may be used from several threads.

    Only tokens that the model itself confirms leave it.
    """

    def __init__(self) -> None:
        self.index = TokenIndex()

    def add(self, tokens: Sequence[int]) -> None:
        """Append an answer, and drop the oldest."""
        index = self.index
        if len(index.tokens) + len(tokens) > _HISTORY_TOKENS:
            index = TokenIndex(index.tokens[-_HISTORY_TOKENS // 2 :])
        for token in tokens[-_HISTORY_TOKENS // 2 :]:
            index.feed(token)
        self.index = index


class PromptLookup:
    """Looks up the last tokens of a sequence in itself and in earlier answers, and takes the longer match.

    Args:
        tokens: the sequence, to which :meth:`feed` appends.
        history: earlier answers.
        forced: what a grammar prescribes after the sequence.
    """

    def __init__(self, tokens: Iterable[int], history: History | None = None, forced: Forced = tuple) -> None:
        self._own = TokenIndex(tokens)
        self._earlier = history.index if history is not None else TokenIndex()
        self._forced = forced
        self._prescribed: Sequence[int] = ()
        self._draft = self._own, 0  # what follows, and where it is

    def feed(self, token: int) -> None:
        """Append a token."""
        self._own.feed(token)

    def kind(self) -> Kind | None:
        """Length and place of the match of the last tokens, or number of prescribed tokens; ``None`` for no draft."""
        self._prescribed = self._forced()
        last = [*self._own.tokens[-_MAX_STRENGTH:], *self._prescribed][-_MAX_STRENGTH:]
        (at, n), (earlier_at, n_earlier) = self._own.find(last), self._earlier.find(last)
        is_earlier = n_earlier > n
        self._draft = (self._earlier, earlier_at) if is_earlier else (self._own, at)
        if self._prescribed:
            return Kind("forced", min(len(self._prescribed), _MAX_STRENGTH))
        if is_earlier:
            return Kind("lookup", n_earlier, "earlier answers")
        return Kind("lookup", n) if n else None

    def prepare(self) -> None:
        """Do nothing: the index is complete."""

    def propose(self, n: int) -> list[int]:
        """The prescribed tokens, then those that followed the match.

        A match that reaches the end goes on with itself, as repetitions do.
        """
        index, at = self._draft
        prescribed = self._prescribed[:n]
        known = index.tokens[at : at + n] if at else []
        return [*prescribed, *(known[i % len(known)] for i in range(n - len(prescribed)))] if known else [*prescribed]

    def close(self) -> None:
        """Do nothing."""
