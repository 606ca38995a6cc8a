"""Routing entropy of random weights: a model that always routes to the same experts benefits from every cache."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from sprat.arrays import I32Array

__all__ = ["RoutingEntropy"]


class RoutingEntropy:
    """Counts the experts that tokens are routed to; an observer for ``new_stream``."""

    def __init__(self) -> None:
        self._counts: defaultdict[int, Counter[int]] = defaultdict(Counter)

    def __call__(self, layer: int, experts: I32Array) -> None:
        """Count ``experts (n, n_experts_per_token)`` of a layer."""
        self._counts[layer].update(experts.ravel().tolist())

    def share(self, n_experts: int) -> float | None:
        """Entropy as a share of the uniform distribution's, averaged over layers; ``None`` before the first token."""
        layers = [
            -sum(count / counts.total() * math.log(count / counts.total()) for count in counts.values())
            for counts in self._counts.values()
        ]
        return sum(layers) / len(layers) / math.log(n_experts) if layers else None
