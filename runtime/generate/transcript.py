"""A token stream and the tokens in its cache, so that a prompt with the same prefix reuses the cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from sprat.arrays import F32Array
from sprat.runtime.backends.protocol import TokenStream
from sprat.runtime.pass_queue import forward_in_turn

__all__ = ["Transcript"]


class Transcript:
    """A token stream and the tokens in its cache.

    Args:
        stream: an empty stream; closed with the transcript.
        on_close: called when the stream has been closed.
    """

    def __init__(self, stream: TokenStream, on_close: Callable[[], object] = lambda: None) -> None:
        self._stream = stream
        self._on_close = on_close
        self._tokens: list[int] = []

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens in the cache."""
        return self._tokens

    @property
    def n_past(self) -> int:
        """Number of tokens in the cache."""
        return len(self._tokens)

    @property
    def capacity(self) -> int:
        """Number of tokens that the cache can hold."""
        return self._stream.capacity

    def forward(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after the last one, ``(vocab_size,)``.

        Of a pass that ends early, the transcript has the tokens that the stream has.
        """
        try:
            return forward_in_turn(self._stream, tokens)
        finally:
            self._tokens += tokens[: max(0, self._stream.length - len(self._tokens))]

    def rewind(self, prompt: Sequence[int]) -> None:
        """Keep the longest common prefix with ``prompt``, without the last token of ``prompt``.

        The last token is always processed again, since its logits are needed.
        """
        pairs = zip(self._tokens, prompt[:-1], strict=False)
        n_common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._stream.truncate(n_common)
        del self._tokens[n_common:]

    def close(self) -> None:
        """Free the cache."""
        self._stream.close()
        self._on_close()
