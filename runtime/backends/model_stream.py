"""``ModelStream``: one sequence in sprat's own forward pass, for the reference and native backends."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.arrays import F32Array
from sprat.runtime.arch.attention import Storage
from sprat.runtime.models import Model, RoutingObserver

__all__ = ["ModelStream"]


class ModelStream:
    """One sequence: a model and its KV cache."""

    def __init__(self, model: Model, capacity: int, observe: RoutingObserver | None, storage: Storage = "f32") -> None:
        self._model = model
        self._cache = model.new_cache(capacity, storage)
        self._observe = observe

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._cache.length

    @property
    def capacity(self) -> int:
        """Maximum number of tokens."""
        return self._cache.capacity

    def forward(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after the last one, ``(vocab_size,)``."""
        return self._model.forward(tokens, self._cache, observe=self._observe).ravel()

    def forward_all(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after each, ``(n, vocab_size)``."""
        return self._model.forward(tokens, self._cache, all_logits=True, observe=self._observe)

    def truncate(self, length: int) -> None:
        """Remove every token from position ``length`` on."""
        self._cache.truncate(length)

    def close(self) -> None:
        """Does nothing: the cache is freed with the last reference."""
