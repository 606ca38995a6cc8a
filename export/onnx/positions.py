"""What the layers share: the angles of the new tokens, and which of the new tokens see each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.runtime.arch.rope import rope_frequencies, rope_magnitude
from sprat.runtime.arch.spec import RopeSpec

__all__ = ["Angles", "causal_mask", "positions", "rotary_angles"]

_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE


@dataclass(frozen=True, slots=True, eq=False)
class Angles:
    """Cosines and sines of the new tokens' positions, ``["n", dim / 2]`` each."""

    cos: Value
    sin: Value
    interleaved: bool
    portable: bool

    def rotate(self, graph: GraphBuilder, x: Value, heads: int, dim: int) -> Value:
        """Rotate ``x`` ``[batch, "n", heads * dim]`` (arXiv 2104.09864)."""
        if self.portable:
            return self._rotate_pairs(graph, x, heads, dim)
        first = graph.constant([0])  # the angles' own first row
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
    """``start`` to ``start + n - 1`` as a vector; both are ``[1]``."""
    steps = graph.op("Range", graph.constant(0), graph.op("Squeeze", n), graph.constant(1))
    return graph.op("Add", steps, start)


def rotary_angles(graph: GraphBuilder, spec: RopeSpec, at: Value, *, portable: bool) -> Angles:
    """Angles of the positions ``at`` ``["n"]``, computed in float64: no table limits the context.

    Args:
        graph: where to.
        spec: the model's rotary embedding.
        at: positions of the new tokens.
        portable: rotate with standard operators.
    """
    with graph.scope("angles"):
        column = graph.op("Unsqueeze", graph.op("Cast", at, to=_DOUBLE), graph.constant([1]))
        radians = graph.op("Mul", column, graph.constant(rope_frequencies(spec)[None], np.float64))
        magnitude = graph.constant(rope_magnitude(spec), np.float64)
        cos, sin = (graph.op("Mul", graph.op(kind, radians), magnitude) for kind in ("Cos", "Sin"))
        cos, sin = (graph.op("Cast", angle, to=_FLOAT) for angle in (cos, sin))
        return Angles(cos, sin, spec.interleaved, portable)


def causal_mask(graph: GraphBuilder, keys: Value, queries: Value) -> Value:
    """0 where the query at one position sees the key at another, minus infinity where the key comes later.

    The positions are shaped so that they broadcast against each other.
    """
    with graph.scope("mask"):
        later = graph.op("Greater", keys, queries)
        return graph.op("Where", later, graph.constant(-np.inf, np.float32), graph.constant(0, np.float32))
