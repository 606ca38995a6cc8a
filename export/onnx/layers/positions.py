"""Inputs shared by all layers: RoPE angles of the new tokens, and the causal mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.runtime.arch.rope import RopeSpec, rope_frequencies, rope_magnitude

__all__ = ["Angles", "causal_mask", "positions", "rotary_angles"]

_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE


@dataclass(frozen=True, slots=True, eq=False)
class Angles:
    """Cosines and sines of the RoPE angles of the new tokens, ``["n", dim / 2]`` each."""

    cos: Value
    sin: Value
    interleaved: bool
    portable: bool

    def rotate(self, graph: GraphBuilder, x: Value, heads: int, dim: int) -> Value:
        """Apply RoPE to ``x`` ``[batch, "n", heads * dim]`` (arXiv 2104.09864)."""
        if self.portable:
            return self._rotate_pairs(graph, x, heads, dim)
        first = graph.constant([0])  # the tables start at the first new token
        return graph.op(
            "RotaryEmbedding", x, first, self.cos, self.sin, domain=CONTRIB, interleaved=int(self.interleaved)
        )

    def _rotate_pairs(self, graph: GraphBuilder, x: Value, heads: int, dim: int) -> Value:
        """``(a, b)`` to ``(a cos - b sin, b cos + a sin)``."""
        pairs = [dim // 2, 2] if self.interleaved else [2, dim // 2]
        axis = 4 if self.interleaved else 3
        split = graph.op("Reshape", x, graph.constant([0, 0, heads, *pairs]))
        a, b = graph.ops("Split", split, n_outputs=2, axis=axis, num_outputs=2)
        axes = graph.constant([1, axis - 1])
        cos, sin = (graph.op("Unsqueeze", angle, axes) for angle in (self.cos, self.sin))
        first = graph.op("Sub", graph.op("Mul", a, cos), graph.op("Mul", b, sin))
        second = graph.op("Add", graph.op("Mul", b, cos), graph.op("Mul", a, sin))
        return graph.op("Reshape", graph.op("Concat", first, second, axis=axis), graph.op("Shape", x))


def positions(graph: GraphBuilder, start: Value, n: Value) -> Value:
    """The vector ``start, ..., start + n - 1``; ``start`` and ``n`` have shape ``[1]``."""
    steps = graph.op("Range", graph.constant(0), graph.op("Squeeze", n), graph.constant(1))
    return graph.op("Add", steps, start)


def rotary_angles(graph: GraphBuilder, spec: RopeSpec, at: Value, *, portable: bool) -> Angles:
    """RoPE angles of the positions ``at`` ``["n"]``; no table limits the context.

    ``Cos`` and ``Sin`` of float64 are missing in onnxruntime before 1.30, and float32 has too few digits for the angle
    of a late position. So whole turns are removed in float64; half a turn at most is left.

    Args:
        graph: the graph to add to.
        spec: the model's RoPE.
        at: positions of the new tokens.
        portable: use standard operators.
    """
    with graph.scope("angles"):
        column = graph.op("Unsqueeze", graph.op("Cast", at, to=_DOUBLE), graph.constant([1]))
        frequencies = rope_frequencies(spec)[None] / (2 * np.pi)
        turns = graph.op("Mul", column, graph.constant(frequencies, np.float64))
        part = graph.op("Cast", graph.op("Sub", turns, graph.op("Round", turns)), to=_FLOAT)
        radians = graph.op("Mul", part, graph.constant(2 * np.pi, np.float32))
        magnitude = graph.constant(rope_magnitude(spec), np.float32)
        cos, sin = (graph.op("Mul", graph.op(kind, radians), magnitude) for kind in ("Cos", "Sin"))
        return Angles(cos, sin, spec.interleaved, portable)


def causal_mask(graph: GraphBuilder, keys: Value, queries: Value) -> Value:
    """Additive causal mask: 0 where a query attends to a key, minus infinity where the key comes later.

    ``keys`` and ``queries`` are positions, shaped to broadcast against each other.
    """
    with graph.scope("mask"):
        later = graph.op("Greater", keys, queries)
        return graph.op("Where", later, graph.constant(-np.inf, np.float32), graph.constant(0, np.float32))
