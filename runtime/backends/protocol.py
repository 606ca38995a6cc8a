"""What a backend is: something that holds the weights and hands out independent token streams.

Protocols, not base classes: a backend wraps a library with a class tree of its own, and shares no code with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sprat.arrays import F32Array

__all__ = ["Backend", "TokenStream"]


class TokenStream(Protocol):
    """One sequence of tokens and its cache."""

    @property
    def length(self) -> int:
        """Tokens in the cache."""

    @property
    def capacity(self) -> int:
        """Tokens that the cache can hold."""

    def forward(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` (at least one) and return the logits after the last one, ``(vocab_size,)``."""

    def forward_all(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after each, ``(n, vocab_size)``."""

    def truncate(self, length: int) -> None:
        """Forget every token from position ``length`` on."""

    def close(self) -> None:
        """Free the cache."""


class Backend(Protocol):
    """Weights in memory, ready to run."""

    @property
    def name(self) -> str:
        """``reference``, ``native``, ``llamacpp`` or ``onnx``."""

    @property
    def vocab_size(self) -> int:
        """Number of logits."""

    @property
    def max_context(self) -> int:
        """Longest sequence that the model was made for."""

    def new_stream(self, capacity: int) -> TokenStream:
        """An empty sequence of at most ``capacity`` tokens."""

    def close(self) -> None:
        """Free the weights."""
