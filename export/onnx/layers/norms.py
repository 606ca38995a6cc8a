"""RMSNorm (arXiv 1910.07467), alone and fused with the residual add before it."""

from __future__ import annotations

import numpy as np

from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value

__all__ = ["add_and_norm", "rms_norm"]


def rms_norm(graph: GraphBuilder, x: Value, gain: Value, eps: float, *, portable: bool) -> Value:
    """``x / sqrt(mean(x ** 2) + eps) * gain`` over the last axis."""
    if not portable:
        return graph.op("SimplifiedLayerNormalization", x, gain, epsilon=eps)  # RMSNorm; ONNX has its own from opset 23
    mean_square = graph.op("ReduceMean", graph.op("Mul", x, x), graph.constant([-1]), keepdims=1)
    root = graph.op("Sqrt", graph.op("Add", mean_square, graph.constant(eps, np.float32)))
    return graph.op("Mul", graph.op("Div", x, root), gain)


def add_and_norm(
    graph: GraphBuilder, x: Value, delta: Value, gain: Value, eps: float, *, portable: bool
) -> tuple[Value, Value]:
    """Residual add and norm: ``(norm(x + delta), x + delta)``."""
    if portable:
        total = graph.op("Add", x, delta)
        return rms_norm(graph, total, gain, eps, portable=True), total
    norm, _, _, total = graph.ops(
        "SkipSimplifiedLayerNormalization", x, delta, gain, n_outputs=4, domain=CONTRIB, epsilon=eps
    )
    return norm, total
