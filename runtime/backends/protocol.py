"""The interface of a backend: it holds the weights and creates independent token streams.

Protocols, not base classes: each backend wraps another library, and they share no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from sprat.arrays import F32Array
from sprat.runtime.models import RoutingObserver

__all__ = ["Backend", "HiddenStates", "RunsTogether", "TokenStream"]


class TokenStream(Protocol):
    """One sequence of tokens and its cache."""

    @property
    def length(self) -> int:
        """Tokens in the cache."""

    @property
    def capacity(self) -> int:
        """Maximum number of tokens."""

    def forward(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` (at least one) and return the logits after the last one, ``(vocab_size,)``.

        Inside an :class:`~sprat.runtime.interrupt.Interrupt` that is set, the pass ends early with ``InterruptError``;
        ``length`` then counts the tokens whose passes were complete.

        Raises:
            BackendError: the stream or the backend was closed.
        """

    def forward_all(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the logits after each, ``(n, vocab_size)``."""

    def truncate(self, length: int) -> None:
        """Remove every token from position ``length`` on."""

    def close(self) -> None:
        """Free the cache; once more does nothing."""


@runtime_checkable
class HiddenStates(Protocol):
    """A token stream whose backend gives hidden states, too."""

    def hidden_states(self, tokens: Sequence[int]) -> F32Array:
        """Append ``tokens`` and return the hidden states after the final norm, ``(n, hidden_size)``."""


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
        """The model's context length."""

    def new_stream(self, capacity: int, observe: RoutingObserver | None = None) -> TokenStream:
        """An empty sequence.

        Args:
            capacity: maximum number of tokens.
            observe: called for each MoE layer of a pass, before its experts are read. Backends that cannot observe
                the routing (``llamacpp``, ``onnx``) ignore it.
        """

    def close(self) -> None:
        """Free the weights, the threads and all streams; later calls raise BackendError, except this one."""


@runtime_checkable
class RunsTogether(Protocol):
    """A backend that can append a token to several streams in one pass, and read each weight once for all of them."""

    @property
    def max_together(self) -> int:
        """Streams up to which every logit has the bits of its stream's own ``forward``."""

    def forward_each(self, streams: Sequence[Any], tokens: Sequence[int]) -> F32Array:
        """Append ``tokens[i]`` to ``streams[i]``, which are this backend's; the logits of each, ``(n, vocab_size)``.

        Raises:
            BackendError: a stream or the backend was closed.
        """
