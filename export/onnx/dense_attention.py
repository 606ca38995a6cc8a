"""Grouped-query attention (arXiv 2305.13245), with the cache that onnxruntime-genai manages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.export.onnx.layer import Layer
from sprat.export.onnx.positions import Angles
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["Batch", "KVValues", "dense_attention", "shares_cache"]


@dataclass(frozen=True, slots=True, eq=False)
class KVValues:
    """Keys and values of a layer, ``[batch, n_kv_heads, ..., head_dim]``."""

    keys: Value
    values: Value


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What all layers know of the sequences.

    Attributes:
        shape: ``[batch, n]``.
        last: index of the last token of each sequence, int32 ``[batch]``.
        total: tokens of the longest sequence, the new ones included, int32.
        mask: ``["n" queries, "total" keys]`` where ``GroupQueryAttention``, which needs none, is not used.
        angles: of the new tokens.
    """

    shape: Value
    last: Value
    total: Value
    mask: Value | None
    angles: Angles


def shares_cache(spec: ModelSpec, *, portable: bool) -> bool:
    """Whether ``GroupQueryAttention`` is used, which may write new rows where the old ones lie.

    It demands heads of a multiple of 8 numbers.
    """
    return not portable and spec.head_dim % 8 == 0


def dense_attention(layer: Layer, x: Value, past: KVValues, batch: Batch) -> tuple[Value, KVValues]:
    """One layer's attention.

    Args:
        layer: of a model without MLA.
        x: normed hidden states ``["batch * n", hidden]``.
        past: the cache before.
        batch: what all layers share.

    Returns:
        What is added to the hidden states, and the cache afterwards.
    """
    graph, spec = layer.graph, layer.spec
    with graph.scope("attn"):
        q, k, v = (_project(layer, f"attn_{part}", x, batch) for part in "qkv")
        q = batch.angles.rotate(graph, q, spec.n_heads, spec.head_dim)
        k = batch.angles.rotate(graph, k, spec.n_kv_heads, spec.head_dim)
        attend = _group_query_attention if batch.mask is None else _attend
        mixed, present = attend(graph, spec, q, k, v, past, batch)
        flat = graph.op("Reshape", mixed, graph.constant([-1, spec.n_heads * spec.head_dim]))
        return layer.linear(flat, "attn_output"), present


def _project(layer: Layer, name: str, x: Value, batch: Batch) -> Value:
    """``[batch, n, heads * head_dim]``."""
    flat = layer.linear(x, name, bias=layer.spec.attention_bias)
    shape = layer.graph.op("Concat", batch.shape, layer.graph.constant([-1]), axis=0)
    return layer.graph.op("Reshape", flat, shape)


def _group_query_attention(
    graph: GraphBuilder, spec: ModelSpec, q: Value, k: Value, v: Value, past: KVValues, batch: Batch
) -> tuple[Value, KVValues]:
    mixed, keys, values = graph.ops(
        "GroupQueryAttention",
        *(q, k, v, past.keys, past.values, batch.last, batch.total),
        n_outputs=3,
        domain=CONTRIB,
        num_heads=spec.n_heads,
        kv_num_heads=spec.n_kv_heads,
    )
    return mixed, KVValues(keys, values)


def _attend(
    graph: GraphBuilder, spec: ModelSpec, q: Value, k: Value, v: Value, past: KVValues, batch: Batch
) -> tuple[Value, KVValues]:
    """The same with standard operators; the cache grows by a copy."""
    assert batch.mask is not None, "a portable graph has a mask"
    keys, values = (
        graph.op("Concat", old, _heads_first(graph, new, spec.n_kv_heads, spec.head_dim), axis=2)
        for old, new in ((past.keys, k), (past.values, v))
    )
    group = spec.n_heads // spec.n_kv_heads
    grouped = graph.op("Reshape", q, graph.constant([0, 0, spec.n_kv_heads, group, spec.head_dim]))
    queries = graph.op("Transpose", grouped, perm=[0, 2, 3, 1, 4])  # (batch, kv_heads, group, n, dim)
    queries = graph.op("Mul", queries, graph.constant(spec.head_dim**-0.5, np.float32))
    axis = graph.constant([2])
    scores = graph.op("MatMul", queries, graph.op("Unsqueeze", graph.op("Transpose", keys, perm=[0, 1, 3, 2]), axis))
    shares = graph.op("Softmax", graph.op("Add", scores, batch.mask))
    mixed = graph.op("MatMul", shares, graph.op("Unsqueeze", values, axis))
    return graph.op("Transpose", mixed, perm=[0, 3, 1, 2, 4]), KVValues(keys, values)


def _heads_first(graph: GraphBuilder, x: Value, heads: int, dim: int) -> Value:
    return graph.op("Transpose", graph.op("Reshape", x, graph.constant([0, 0, heads, dim])), perm=[0, 2, 1, 3])
