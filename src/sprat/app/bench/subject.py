"""A backend as the subject of a benchmark: it reads random tokens, in chunks as the engine does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.arrays import F32Array
from sprat.runtime.backends.protocol import TokenStream

__all__ = ["StreamSubject"]

_SEED = 0


class StreamSubject:
    """A token stream that reads random tokens, as in llama-bench, so that an MoE model uses many experts.

    Args:
        stream: an empty stream.
        vocab_size: tokens are drawn from this many.
        batch: prompt tokens per forward pass.
    """

    def __init__(self, stream: TokenStream, vocab_size: int, batch: int) -> None:
        self._batch = batch
        self._stream = stream
        self._tokens: Sequence[int] = np.random.default_rng(_SEED).integers(0, vocab_size, stream.capacity).tolist()

    def rewind(self, depth: int) -> None:
        """Truncate the sequence to ``depth`` tokens, or extend it to them."""
        if self._stream.length > depth:
            self._stream.truncate(depth)
        self._extend(depth - self._stream.length)

    def prefill(self, n_tokens: int) -> None:
        """Process the next tokens and take the argmax of the logits."""
        np.argmax(self._extend(n_tokens))

    def decode(self) -> None:
        """Process one token and take the argmax of the logits."""
        np.argmax(self._extend(1))

    def _extend(self, n_tokens: int) -> F32Array:
        """Logits after the next ``n_tokens``; a placeholder if there are none."""
        logits = np.zeros(1, np.float32)
        start = self._stream.length
        for at in range(start, start + n_tokens, self._batch):
            logits = self._stream.forward(self._tokens[at : min(at + self._batch, start + n_tokens)])
        return logits
