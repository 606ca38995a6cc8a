"""``GrammarVocabulary``: a model's vocabulary as llguidance reads it, and the matchers of grammars over it."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sprat.errors import BackendError, InputError
from sprat.runtime.generate.constraint.library import matcher_class, tokenizer_class
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["GrammarVocabulary"]

_UNSUPPORTED = re.compile(r"Unimplemented keys: \[(?P<names>[^\]]*)\]")


class GrammarVocabulary:
    """The tokens of a model, ready for masks.

    Args:
        tokenizer: the model's tokenizer.
        vocab_size: number of logits; ids beyond the tokenizer's are never allowed.

    Attributes:
        eos_id: an end token.
        byte_tokens: byte -> a token of this byte only.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        ends = sorted(token for token in tokenizer.eog_ids if token < vocab_size)
        if not ends:
            raise BackendError("the model has no end token, expected one for response_format; use generate() with stop")
        self.vocab_size = vocab_size
        self.eos_id = ends[0]
        texts = {token: tokenizer.token_bytes(token) for token in range(min(vocab_size, tokenizer.vocab_size))}
        self.byte_tokens = {text[0]: token for token, text in texts.items() if len(text) == 1}
        self._library = tokenizer_class()(_Tokens(tokenizer, texts, vocab_size, ends[0]), eos_token=ends)

    @classmethod
    def of(cls, tokenizer: Tokenizer, vocab_size: int) -> GrammarVocabulary:
        """The vocabulary of ``tokenizer``, made once: every token is read for it.

        Raises:
            BackendError: llguidance is not installed, or the model has no end token.
        """
        found = _MADE.get(tokenizer)
        if found is None or found.vocab_size != vocab_size:
            found = _MADE[tokenizer] = cls(tokenizer, vocab_size)
        return found

    def matcher(self, grammar: str) -> Any:
        """A matcher at the start of ``grammar``.

        Raises:
            InputError: the grammar cannot be used; the message names the keyword or has the place.
        """
        matcher = matcher_class()(self._library, grammar, log_level=0)
        if matcher.is_error():
            raise InputError(f"response_format: {_reason(matcher.get_error())}")
        return matcher

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text in the middle of an answer."""
        ids: list[int] = self._library.tokenize_str(text)
        return ids


_MADE: WeakKeyDictionary[Tokenizer, GrammarVocabulary] = WeakKeyDictionary()


class _Tokens:
    """The tokenizer under the names that llguidance reads."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer, texts: dict[int, bytes], vocab_size: int, eos_id: int) -> None:
        unused = range(len(texts), vocab_size)
        self.tokens: Sequence[bytes] = [
            *(text or tokenizer.vocabulary.tokens[token].encode() for token, text in texts.items()),
            *(f"<[{token}]>".encode() for token in unused),
        ]
        self.special_token_ids = [*(token for token, text in texts.items() if not text), *unused]
        self.eos_token_id = eos_id
        self.bos_token_id = tokenizer.bos_id
        self._tokenizer = weakref.ref(tokenizer)  # the library keeps this object, and the cache must not keep its key

    def __call__(self, text: str | bytes) -> list[int]:
        """Token ids of text in the middle of an answer: without the space that some put before a first word."""
        decoded = text if isinstance(text, str) else text.decode("utf-8", "replace")
        tokenizer = self._tokenizer()
        return [] if tokenizer is None else tokenizer.encode_parts([self.eos_token_id, decoded])[1:]


def _reason(error: str) -> str:
    """The message of llguidance, with the unsupported keywords of a schema in sprat's words."""
    if found := _UNSUPPORTED.search(error):
        names = found["names"].replace('"', "'")
        return f"the schema uses {names}, which constrained answers do not support; remove it, and check the answer"
    if "coerce_one_of" in error:
        return "the schema uses 'oneOf' for alternatives that may overlap; use 'anyOf'"
    first, *others = [line.strip() for line in error.strip().splitlines()]
    causes = [line.removeprefix("error: ") for line in others if line.startswith("error: ")]  # after a drawing
    return f"{': '.join([first.rstrip(':'), *causes])}; correct the schema, expression or grammar"
