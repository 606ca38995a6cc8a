"""A layer of the graph: its weights by their names within the layer."""

from __future__ import annotations

from dataclasses import dataclass

from sprat.export.onnx.graph import GraphBuilder, Value
from sprat.export.onnx.layers.norms import rms_norm
from sprat.export.onnx.weights import GraphWeights
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["Layer"]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Context in which attention and MLP add one layer to the graph."""

    graph: GraphBuilder
    weights: GraphWeights
    spec: ModelSpec
    number: int

    @property
    def portable(self) -> bool:
        """Whether only standard operators are allowed."""
        return self.weights.options.portable

    def linear(self, x: Value, name: str, *, bias: bool = False) -> Value:
        """``x`` ``["n", in]`` times a matrix: ``["n", out]``."""
        return self.weights.linear(x, self._full(name), f"{self._full(name)}.bias" if bias else None)

    def per_head(self, x: Value, name: str) -> Value:
        """Each head's part of ``x`` ``["n", heads, in]`` times its own matrix: ``["n", heads, out]``."""
        return self.weights.per_head(x, self._full(name))

    def vector(self, name: str) -> Value:
        """A gain, a bias or the router, as float32."""
        return self.weights.vector(self._full(name))

    def norm(self, x: Value, name: str, eps: float | None = None) -> Value:
        """RMSNorm of ``x`` with the gain ``name``; ``eps`` is the model's unless it is given."""
        gain = self.vector(f"{name}.weight")
        return rms_norm(self.graph, x, gain, eps or self.spec.rms_norm_eps, portable=self.portable)

    def _full(self, name: str) -> str:
        return f"blk.{self.number}.{name}"
