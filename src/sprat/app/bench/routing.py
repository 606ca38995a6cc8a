"""How evenly random weights route: a mixture that always asks for the same experts would flatter every cache."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from sprat.arrays import I32Array
from sprat.runtime.backends.native import NativeBackend
from sprat.runtime.backends.protocol import Backend, TokenStream
from sprat.runtime.backends.reference import ReferenceBackend

__all__ = ["RoutingEntropy", "watched_stream"]


class RoutingEntropy:
    """Counts the experts that tokens choose; an observer of streams."""

    def __init__(self) -> None:
        self._counts: defaultdict[int, Counter[int]] = defaultdict(Counter)

    def __call__(self, layer: int, experts: I32Array) -> None:
        """Count ``experts (n, n_experts_per_token)`` of a layer."""
        self._counts[layer].update(experts.ravel().tolist())

    def share(self, n_experts: int) -> float | None:
        """Entropy of the choices as a share of the even one, averaged over layers; ``None`` before there are any."""
        layers = [
            -sum(count / counts.total() * math.log(count / counts.total()) for count in counts.values())
            for counts in self._counts.values()
        ]
        return sum(layers) / len(layers) / math.log(n_experts) if layers else None


def watched_stream(backend: Backend, capacity: int, routing: RoutingEntropy) -> TokenStream:
    """An empty sequence whose choices are counted, where the backend shows them."""
    if isinstance(backend, NativeBackend | ReferenceBackend):
        return backend.new_stream(capacity, routing)
    return backend.new_stream(capacity)
