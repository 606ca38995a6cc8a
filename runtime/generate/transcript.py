"""A token stream and the tokens that are in it, so that a prompt with the same prefix reuses the cache."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from sprat.arrays import F32Array
from sprat.runtime.backends.protocol import TokenStream

__all__ = ["Transcript"]


class Transcript:
    """A token stream that remembers its tokens, so that a prompt with the same beginning can go on from there."""

    def __init__(self, stream: TokenStream) -> None:
        self._stream = stream
        self._tokens: list[int] = []

    @property
    def tokens(self) -> Sequence[int]:
        """Tokens in the cache."""
        return self._tokens

    @property
    def capacity(self) -> int:
        """Tokens that the cache can hold."""
        return self._stream.capacity

    def extend(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after the last one, ``(vocab_size,)``."""
        logits = self._stream.extend(tokens)
        self._tokens += tokens
        return logits

    def rewind(self, prompt: Sequence[int]) -> None:
        """Keep what ``prompt`` begins with too, but never all of it: the logits after its last token are needed."""
        both = zip(self._tokens, prompt[:-1], strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], both))
        self._stream.truncate(common)
        del self._tokens[common:]

    def close(self) -> None:
        """Free the cache."""
        self._stream.close()
