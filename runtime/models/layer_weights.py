"""The weights of one layer under their short names."""

from __future__ import annotations

from sprat.arrays import F32Array
from sprat.runtime.kernels import MLP
from sprat.runtime.weights import Weight, WeightSource

__all__ = ["LayerWeights"]


class LayerWeights:
    """The weights of one layer under their short names."""

    def __init__(self, weights: WeightSource, layer: int) -> None:
        self._weights = weights
        self._prefix = f"blk.{layer}."

    def matrix(self, name: str) -> Weight:
        """A weight in its file's format."""
        return self._weights.weight(f"{self._prefix}{name}.weight")

    def gain(self, name: str) -> F32Array:
        """A norm's gain, dequantized."""
        return self.matrix(name).dequantize()

    def bias(self, name: str) -> F32Array:
        """A bias, dequantized."""
        return self._weights.weight(f"{self._prefix}{name}.bias").dequantize()

    def mlp(self, suffix: str = "") -> MLP:
        """The MLP with the suffix ``""`` (dense), ``"_exps"`` (routed experts) or ``"_shexp"`` (shared experts)."""
        return MLP(*(self.matrix(f"ffn_{part}{suffix}") for part in ("gate", "up", "down")))
