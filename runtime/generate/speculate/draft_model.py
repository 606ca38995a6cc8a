"""``DraftModel``: a small model with the vocabulary of the large one guesses tokens (arXiv 2211.17192)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sprat.runtime.backends.protocol import TokenStream
from sprat.runtime.generate.speculate.drafter import Kind

__all__ = ["DraftModel"]


class DraftModel:
    """The most likely tokens of a small model.

    Args:
        stream: an empty stream of the small model; its capacity limits the sequence.
        tokens: the sequence, to which :meth:`feed` appends.
        vocab_size: of the large model, whose pass rejects other ids.
        on_close: called when the stream has been closed.
    """

    def __init__(
        self, stream: TokenStream, tokens: Sequence[int], vocab_size: int, on_close: Callable[[], object]
    ) -> None:
        self._stream, self._tokens, self._vocab_size = stream, list(tokens), vocab_size
        self._on_close = on_close
        self._held: list[int] = []  # tokens in the stream
        self._n_right = 0  # of which the sequence has as many

    def feed(self, token: int) -> None:
        """Append a token."""
        at = len(self._tokens)
        self._tokens.append(token)
        if self._n_right == at < len(self._held) and self._held[at] == token:
            self._n_right += 1

    def kind(self) -> Kind | None:
        """Always the same, until the stream is full."""
        return Kind("model", 0) if len(self._tokens) < self._stream.capacity else None

    def prepare(self) -> None:
        """Process what the stream lacks of the sequence, but for the last token."""
        self._stream.truncate(self._n_right)
        if lacking := self._tokens[self._n_right : -1]:
            self._stream.forward(lacking)
        self._held = self._tokens[:-1]
        self._n_right = len(self._held)

    def propose(self, n: int) -> list[int]:
        """The next ``n`` tokens, greedily; after :meth:`prepare`."""
        logits = self._stream.forward(self._tokens[-1:])
        self._held.append(self._tokens[-1])
        self._n_right += 1
        drafts = [int(logits[: self._vocab_size].argmax())]
        while len(drafts) < n and len(self._held) < self._stream.capacity:
            logits = self._stream.forward(drafts[-1:])
            self._held.append(drafts[-1])
            drafts.append(int(logits[: self._vocab_size].argmax()))
        return drafts

    def close(self) -> None:
        """Free the cache."""
        self._stream.close()
        self._on_close()
