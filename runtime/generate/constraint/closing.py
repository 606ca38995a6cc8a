"""``ClosingGuide``: an answer that is finished within its number of tokens (``close_json``)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from sprat.errors import InputError
from sprat.runtime.generate.constraint.grammar import GrammarVocabulary
from sprat.runtime.generate.constraint.grammar_guide import GrammarGuide
from sprat.runtime.generate.guide import TokenMask

__all__ = ["ClosingGuide"]

_ENDINGS = b'}]"'  # what closes an object, a list, a text
_ENDINGS_OF_TEXT = b'"}]'
_ONLY_IN_TEXT = ord("@")
_COMMON = b":,0123456789-.eE+tfn{[ abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class ClosingGuide:
    """Takes sampled tokens while a short end still fits after them, and that end from then on.

    Args:
        vocabulary: the model's tokens.
        grammar: what the answer must match.
        max_tokens: tokens of the answer, an end token included, and of what comes before it (:meth:`spend`).

    Attributes:
        n_shortest: tokens of the shortest answer that was found.

    Raises:
        InputError: the grammar cannot be used, or no answer of so few tokens was found.
    """

    def __init__(self, vocabulary: GrammarVocabulary, grammar: str, max_tokens: int) -> None:
        self._guide = GrammarGuide(vocabulary, grammar)
        self._vocabulary = vocabulary
        self._left = max_tokens
        tokens = vocabulary.byte_tokens
        self._bytes = [byte for byte in (*_COMMON, *sorted(tokens.keys() - _COMMON)) if byte in tokens]
        self._ids = np.array([tokens[byte] for byte in self._bytes], np.intp)
        self._bits = np.zeros((vocabulary.vocab_size + 31) // 32, np.int32)
        end = self._end(self._guide.matcher.deep_copy(), max_tokens)
        if end is None:
            raise InputError(
                f"close_json: found no answer of at most {max_tokens} tokens that matches response_format; "
                "raise max_tokens"
            )
        self._closing = end
        self.n_shortest = len(end)

    @property
    def is_complete(self) -> bool:
        """The grammar is matched, and nothing may follow."""
        return self._guide.is_complete

    def allowed(self) -> TokenMask:
        """The tokens that the grammar allows next."""
        return self._guide.allowed()

    def spend(self) -> None:
        """Count a token that is not part of the answer."""
        self._left -= 1

    def accept(self, token_id: int) -> int:
        """Take the token, or the next one of the end, if that would not fit after it."""
        self._left -= 1
        if token_id not in self._closing[:1]:
            ahead = self._guide.matcher.deep_copy()
            ahead.consume_token(token_id)
            if (end := self._end(ahead, self._left)) is not None:
                self._closing = end
                return self._guide.accept(token_id)
        token_id, *self._closing = self._closing
        return self._guide.accept(token_id)

    def forced(self) -> list[int]:
        """Tokens that the grammar forces; where too few tokens are left, :meth:`accept` takes others."""
        return self._guide.forced()

    def _end(self, matcher: Any, limit: int) -> list[int] | None:
        """Tokens of a short text that finishes the match, found greedily; ``None`` where it has more than ``limit``.

        Closing brackets and quotes are taken where the grammar allows them, then what it forces, then the byte that was
        used least so far, so that no repetition goes on for ever.
        """
        found: list[int] = []
        used: Counter[int] = Counter()
        while not matcher.is_accepting() and not matcher.is_stopped():
            step = self._step(matcher, used)
            found += step
            if not step or len(found) > limit:
                return None
        if not matcher.is_stopped():
            found.append(self._vocabulary.eos_id)
        return found if len(found) <= limit else None

    def _step(self, matcher: Any, used: Counter[int]) -> list[int]:
        """The next tokens, which the matcher has taken; none where no single byte is allowed."""
        tokens = self._vocabulary.byte_tokens
        is_text = _ONLY_IN_TEXT in tokens and matcher.validate_tokens([tokens[_ONLY_IN_TEXT]]) == 1
        for byte in _ENDINGS_OF_TEXT if is_text else _ENDINGS:
            if byte in tokens and matcher.try_consume_tokens([tokens[byte]]):
                return [tokens[byte]]
        if forced := matcher.compute_ff_tokens():
            matcher.consume_tokens(forced)
            return list(forced)
        candidates = sorted(self._bytes if is_text else self._allowed(matcher), key=used.__getitem__)
        last = None if is_text else next((byte for byte in candidates if _ends(matcher, tokens[byte])), None)
        for byte in candidates if last is None else [last]:
            if matcher.try_consume_tokens([tokens[byte]]):
                used[byte] += 1
                return [tokens[byte]]
        return []

    def _allowed(self, matcher: Any) -> list[int]:
        """The single bytes that may come next: outside of a text, few."""
        matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        bits = self._bits.view(np.uint32)[self._ids >> 5] >> (self._ids & 31).astype(np.uint32)
        return [self._bytes[at] for at in np.flatnonzero(bits & 1)]


def _ends(matcher: Any, token: int) -> bool:
    """Whether ``token`` completes a match; the matcher is where it was."""
    if not matcher.try_consume_tokens([token]):
        return False
    is_end = bool(matcher.is_accepting())
    matcher.rollback(1)
    return is_end
