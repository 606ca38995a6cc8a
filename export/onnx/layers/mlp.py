"""The gated MLP: ``down(silu(gate(x)) * up(x))`` (arXiv 2002.05202)."""

from __future__ import annotations

from sprat.export.onnx.graph import GraphBuilder, Value
from sprat.export.onnx.layers.layer import Layer

__all__ = ["gated", "mlp"]


def mlp(layer: Layer, x: Value, suffix: str = "") -> Value:
    """The MLP of ``x`` ``["n", hidden]``; ``suffix`` is ``_shexp`` for shared experts."""
    with layer.graph.scope(f"mlp{suffix}"):
        gate, up = (layer.linear(x, f"ffn_{part}{suffix}") for part in ("gate", "up"))
        return layer.linear(gated(layer.graph, gate, up), f"ffn_down{suffix}")


def gated(graph: GraphBuilder, gate: Value, up: Value) -> Value:
    """``silu(gate) * up``."""
    return graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), up)
