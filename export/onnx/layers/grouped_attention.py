"""Grouped-query attention (arXiv 2305.13245) with the KV cache layout of onnxruntime-genai."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.export.onnx.layers.layer import Layer
from sprat.export.onnx.layers.positions import Angles
from sprat.runtime.arch.attention import GroupedAttentionSpec

__all__ = ["Batch", "KVValues", "grouped_attention", "shares_cache"]


@dataclass(frozen=True, slots=True, eq=False)
class KVValues:
    """Keys and values of a layer, ``[batch, n_kv_heads, ..., head_dim]``."""

    keys: Value
    values: Value


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Inputs that all layers share.

    Attributes:
        shape: ``[batch, n]``.
        last: index of the last token of each sequence, int32 ``[batch]``.
        total: tokens of the longest sequence including the new ones, int32.
        mask: ``["n" queries, "total" keys]``; ``None`` with ``GroupQueryAttention``, which masks by itself.
        angles: RoPE angles of the new tokens.
    """

    shape: Value
    last: Value
    total: Value
    mask: Value | None
    angles: Angles


def shares_cache(attention: GroupedAttentionSpec, *, portable: bool) -> bool:
    """Whether ``GroupQueryAttention`` is used, which can write new KV entries into the buffer of the past ones.

    It needs a ``head_dim`` that is a multiple of 8.
    """
    return not portable and attention.head_dim % 8 == 0


def grouped_attention(
    layer: Layer, attention: GroupedAttentionSpec, x: Value, past: KVValues, batch: Batch
) -> tuple[Value, KVValues]:
    """Add the attention of one layer.

    Args:
        layer: the layer.
        attention: its dimensions.
        x: normed hidden states ``["batch * n", hidden]``.
        past: past keys and values.
        batch: inputs that all layers share.

    Returns:
        The residual ``["batch * n", hidden]``, and the present keys and values.
    """
    graph, scale = layer.graph, attention.scale(layer.spec.rope)
    with graph.scope("attn"):
        q, k, v = (_project(layer, attention, f"attn_{part}", x, batch) for part in "qkv")
        if attention.qk_norm:
            q, k = (_normalized_heads(layer, attention, name, x) for name, x in (("attn_q", q), ("attn_k", k)))
        q = batch.angles.rotate(graph, q, attention.n_heads, attention.head_dim)
        k = batch.angles.rotate(graph, k, attention.n_kv_heads, attention.head_dim)
        attend = _group_query_attention if batch.mask is None else _attend
        output, present = attend(graph, attention, scale, q, k, v, past, batch)
        flat = graph.op("Reshape", output, graph.constant([-1, attention.q_width]))
        return layer.linear(flat, "attn_output"), present


def _project(layer: Layer, attention: GroupedAttentionSpec, name: str, x: Value, batch: Batch) -> Value:
    """``[batch, n, heads * head_dim]``."""
    flat = layer.linear(x, name, bias=attention.bias)
    shape = layer.graph.op("Concat", batch.shape, layer.graph.constant([-1]), axis=0)
    return layer.graph.op("Reshape", flat, shape)


def _normalized_heads(layer: Layer, attention: GroupedAttentionSpec, name: str, x: Value) -> Value:
    """RMSNorm of each head of ``x`` ``[batch, n, heads * head_dim]``."""
    heads = layer.graph.op("Reshape", x, layer.graph.constant([0, 0, -1, attention.head_dim]))
    normed = layer.norm(heads, f"{name}_norm")
    return layer.graph.op("Reshape", normed, layer.graph.op("Shape", x))


def _group_query_attention(
    graph: GraphBuilder,
    attention: GroupedAttentionSpec,
    scale: float,
    q: Value,
    k: Value,
    v: Value,
    past: KVValues,
    batch: Batch,
) -> tuple[Value, KVValues]:
    attributes: dict[str, Any] = {} if scale == attention.head_dim**-0.5 else {"scale": scale}  # the default
    output, keys, values = graph.ops(
        "GroupQueryAttention",
        *(q, k, v, past.keys, past.values, batch.last, batch.total),
        n_outputs=3,
        domain=CONTRIB,
        num_heads=attention.n_heads,
        kv_num_heads=attention.n_kv_heads,
        **attributes,
    )
    return output, KVValues(keys, values)


def _attend(
    graph: GraphBuilder,
    attention: GroupedAttentionSpec,
    scale: float,
    q: Value,
    k: Value,
    v: Value,
    past: KVValues,
    batch: Batch,
) -> tuple[Value, KVValues]:
    """Attention with standard operators; the cache is copied to append to it."""
    assert batch.mask is not None, "a portable graph has a mask"
    keys, values = (
        graph.op("Concat", old, _heads_first(graph, new, attention.n_kv_heads, attention.head_dim), axis=2)
        for old, new in ((past.keys, k), (past.values, v))
    )
    group = attention.n_heads // attention.n_kv_heads
    grouped = graph.op("Reshape", q, graph.constant([0, 0, attention.n_kv_heads, group, attention.head_dim]))
    queries = graph.op("Transpose", grouped, perm=[0, 2, 3, 1, 4])  # (batch, kv_heads, group, n, dim)
    queries = graph.op("Mul", queries, graph.constant(scale, np.float32))
    axis = graph.constant([2])
    scores = graph.op("MatMul", queries, graph.op("Unsqueeze", graph.op("Transpose", keys, perm=[0, 1, 3, 2]), axis))
    probs = graph.op("Softmax", graph.op("Add", scores, batch.mask))
    output = graph.op("MatMul", probs, graph.op("Unsqueeze", values, axis))
    return graph.op("Transpose", output, perm=[0, 3, 1, 2, 4]), KVValues(keys, values)


def _heads_first(graph: GraphBuilder, x: Value, heads: int, dim: int) -> Value:
    return graph.op("Transpose", graph.op("Reshape", x, graph.constant([0, 0, heads, dim])), perm=[0, 2, 1, 3])
