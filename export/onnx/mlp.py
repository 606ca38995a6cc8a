"""The dense MLP: ``down(silu(gate(x)) * up(x))`` (arXiv 2002.05202)."""

from __future__ import annotations

from sprat.export.onnx.graph import GraphBuilder, Value
from sprat.export.onnx.weights import GraphWeights

__all__ = ["gated", "mlp"]


def mlp(graph: GraphBuilder, weights: GraphWeights, layer: int, x: Value, suffix: str = "") -> Value:
    """The MLP of ``x`` ``["n", hidden]``; ``suffix`` is ``_shexp`` for shared experts."""
    with graph.scope(f"mlp{suffix}"):
        gate, up = (weights.linear(x, f"blk.{layer}.ffn_{part}{suffix}") for part in ("gate", "up"))
        return weights.linear(gated(graph, gate, up), f"blk.{layer}.ffn_down{suffix}")


def gated(graph: GraphBuilder, gate: Value, up: Value) -> Value:
    """``silu(gate) * up``."""
    return graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), up)
