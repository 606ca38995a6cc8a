"""``ModelStream``: one sequence in sprat's own forward pass, for the reference and native backends."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from sprat.arrays import F32Array
from sprat.errors import BackendError
from sprat.runtime.arch.attention import Storage
from sprat.runtime.cache import Cache
from sprat.runtime.models import Model, RoutingObserver

__all__ = ["ModelStream", "ModelStreams"]


class ModelStream:
    """One sequence: a model and its KV cache."""

    def __init__(self, model: Model, capacity: int, observe: RoutingObserver | None, storage: Storage = "f32") -> None:
        self._open: tuple[Model, Cache] | None = (model, model.new_cache(capacity, storage))
        self._observe = observe
        self._capacity = capacity

    @property
    def length(self) -> int:
        """Tokens in the cache; 0 once it is closed."""
        return self._open[1].length if self._open else 0

    @property
    def capacity(self) -> int:
        """Maximum number of tokens."""
        return self._capacity

    def forward(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after the last one, ``(vocab_size,)``."""
        model, cache = self._opened()
        return model.forward(tokens, cache, observe=self._observe).ravel()

    def forward_all(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after each, ``(n, vocab_size)``."""
        model, cache = self._opened()
        return model.forward(tokens, cache, all_logits=True, observe=self._observe)

    def hidden_states(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the hidden states after the final norm, ``(n, hidden_size)``."""
        model, cache = self._opened()
        return model.hidden_states(tokens, cache)

    def truncate(self, length: int) -> None:
        """Remove every token from position ``length`` on."""
        self._opened()[1].truncate(length)

    def close(self) -> None:
        """Free the cache; a pass that another thread runs ends first."""
        self._open = self._observe = None

    def _opened(self) -> tuple[Model, Cache]:
        """The model and the cache.

        Raises:
            BackendError: the stream was closed.
        """
        if self._open is None:
            raise BackendError("the engine or the session was closed; load the model again")
        return self._open


class ModelStreams:
    """The weights of a backend and the streams that run them, which are closed together.

    Args:
        model: the weights.
    """

    def __init__(self, model: Model) -> None:
        self._model: Model | None = model
        self._streams: weakref.WeakSet[ModelStream] = weakref.WeakSet()

    def forward_each(
        self, streams: Sequence[ModelStream], tokens: Sequence[int], observe: RoutingObserver | None
    ) -> F32Array:
        """Append one token to each of several streams, in one pass; the logits of each, ``(n, vocab_size)``.

        Raises:
            BackendError: the backend or a stream was closed.
        """
        opened = [stream._opened() for stream in streams]  # noqa: SLF001  # this class makes them
        model = opened[0][0]
        return model.forward_each(tokens, [cache for _, cache in opened], observe=observe)

    def new(self, capacity: int, observe: RoutingObserver | None, storage: Storage = "f32") -> ModelStream:
        """An empty sequence.

        Raises:
            BackendError: the backend was closed.
        """
        if self._model is None:
            raise BackendError("the engine was closed; load the model again")
        stream = ModelStream(self._model, capacity, observe, storage)
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """Let go of the weights and of every cache: maps, packed copies and threads end with the last pass."""
        self._model = None
        for stream in list(self._streams):
            stream.close()
