"""``GrammarGuide``: an answer that matches a grammar."""

from __future__ import annotations

from typing import Any

import numpy as np

from sprat.errors import InputError
from sprat.runtime.generate.constraint.grammar import GrammarVocabulary
from sprat.runtime.generate.guide import TokenMask

__all__ = ["GrammarGuide"]


class GrammarGuide:
    """Allows the tokens with which the answer still matches a grammar.

    Args:
        vocabulary: the model's tokens.
        grammar: from :func:`~sprat.runtime.generate.constraint.response_format.grammar_of`.

    Raises:
        InputError: the grammar cannot be used.
    """

    def __init__(self, vocabulary: GrammarVocabulary, grammar: str) -> None:
        self.matcher = vocabulary.matcher(grammar)
        self._vocab_size = vocabulary.vocab_size
        self._bits = np.zeros((self._vocab_size + 31) // 32, np.int32)

    @property
    def is_complete(self) -> bool:
        """The grammar is matched, and nothing may follow."""
        return bool(self.matcher.is_stopped())

    def allowed(self) -> TokenMask:
        """The tokens that continue a match; the end tokens once it is one.

        Raises:
            InputError: the grammar takes too long, or has no continuation.
        """
        self.matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        return np.unpackbits(self._bits.view(np.uint8), count=self._vocab_size, bitorder="little").view(np.bool_)

    def accept(self, token_id: int) -> int:
        """Take a token that was allowed.

        Raises:
            InputError: the grammar takes too long.
        """
        self.matcher.consume_token(token_id)
        self._check()
        return token_id

    def forced(self) -> list[int]:
        """The tokens of the text that the grammar prescribes next."""
        tokens: list[int] = self.matcher.compute_ff_tokens()
        return tokens

    def _check(self) -> None:
        if self.matcher.is_error():
            raise InputError(f"response_format: the answer cannot go on ({_first_line(self.matcher)}); simplify it")


def _first_line(matcher: Any) -> str:
    text: str = matcher.get_error()
    return text.strip().splitlines()[0] if text.strip() else "no reason given"
