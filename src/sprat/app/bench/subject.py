"""A backend as something that a benchmark can measure: random tokens, in the chunks of the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.arrays import F32Array
from sprat.runtime.backends.protocol import TokenStream

__all__ = ["StreamSubject"]

_SEED = 0


class StreamSubject:
    """A token stream fed with random tokens (as llama-bench does), so that a mixture asks for many experts.

    Args:
        stream: an empty sequence.
        vocab_size: tokens to draw from.
        batch: tokens of a prompt that are processed at once.
    """

    def __init__(self, stream: TokenStream, vocab_size: int, batch: int) -> None:
        self._batch = batch
        self._stream = stream
        self._tokens: Sequence[int] = np.random.default_rng(_SEED).integers(0, vocab_size, stream.capacity).tolist()

    def rewind(self, depth: int) -> None:
        """Cut the sequence to ``depth`` tokens, or process what is missing."""
        if self._stream.length > depth:
            self._stream.truncate(depth)
        self._extend(depth - self._stream.length)

    def prefill(self, n_tokens: int) -> None:
        """Process the next tokens and look for the likeliest one."""
        np.argmax(self._extend(n_tokens))

    def decode(self) -> None:
        """Process one token and look for the likeliest next one."""
        np.argmax(self._extend(1))

    def _extend(self, n_tokens: int) -> F32Array:
        """Logits after the last of the next ``n_tokens``; nothing of use after none."""
        logits = np.zeros(1, np.float32)
        start = self._stream.length
        for at in range(start, start + n_tokens, self._batch):
            logits = self._stream.extend(self._tokens[at : min(at + self._batch, start + n_tokens)])
        return logits
