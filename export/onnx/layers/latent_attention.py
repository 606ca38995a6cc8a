"""Multi-head latent attention (arXiv 2405.04434), absorbed, over a cache of latents that is never copied.

The caller owns the past latents; the graph returns the new ones. QK and PV are computed separately for both, with one
softmax over all scores::

    scores = [(past @ q.T).T, q @ new.T]      q (n * heads, latent_dim): the query, k_b absorbed
    output = p_past @ past + p_new @ new

In QK the cache is operand A, which onnxruntime reads in place; ``q @ past.T`` would transpose the whole cache (0.55 ms
instead of 0.32 at depth 2048 for V2-Lite). In PV the cache is operand B, which onnxruntime packs panel by panel; that
is faster than the column access of ``past.T @ p.T``. Only the small score matrix is transposed, so that the softmax
runs along rows.
"""

from __future__ import annotations

import numpy as np

from sprat.export.onnx.graph import GraphBuilder, Value
from sprat.export.onnx.layers.layer import Layer
from sprat.export.onnx.layers.positions import Angles
from sprat.runtime.arch.attention import LatentAttentionSpec

__all__ = ["latent_attention"]


def latent_attention(
    layer: Layer, mla: LatentAttentionSpec, x: Value, past: Value, angles: Angles, mask: Value
) -> tuple[Value, Value]:
    """Add the attention of one layer.

    Args:
        layer: the layer.
        mla: its dimensions.
        x: normed hidden states ``["n", hidden]``.
        past: past latents ``["past", latent_dim]``.
        angles: RoPE angles of the new tokens.
        mask: causal mask of the new tokens, ``["n" queries, 1, "n" keys]``.

    Returns:
        The residual ``["n", hidden]``, and the new latents ``["n", latent_dim]``.
    """
    graph = layer.graph
    with graph.scope("attn"):
        rows = _new_rows(layer, mla, x, angles)
        query = _absorbed_query(layer, mla, x, angles)
        output = _attend(layer, mla, query, past, rows, mask)
        values = layer.per_head(output, "attn_v_b")
        flat = graph.op("Reshape", values, graph.constant([0, mla.output_width]))
        return layer.linear(flat, "attn_output"), rows


def _new_rows(layer: Layer, mla: LatentAttentionSpec, x: Value, angles: Angles) -> Value:
    """The latents of the new tokens: ``[norm(compressed), rotated key]``."""
    graph = layer.graph
    sizes = graph.constant([mla.kv_lora_rank, mla.qk_rope_head_dim])
    latent, key = graph.ops("Split", layer.linear(x, "attn_kv_a_mqa"), sizes, n_outputs=2, axis=1)
    rotated = _rotate(graph, mla, key, 1, angles)
    return graph.op("Concat", layer.norm(latent, "attn_kv_a_norm", mla.norm_eps), rotated, axis=1, name="new_rows")


def _absorbed_query(layer: Layer, mla: LatentAttentionSpec, x: Value, angles: Angles) -> Value:
    """Scaled queries against latents, ``["n" * heads, latent_dim]``."""
    graph, heads = layer.graph, mla.n_heads
    if mla.q_lora_rank is None:
        q = layer.linear(x, "attn_q")
    else:
        compressed = layer.norm(layer.linear(x, "attn_q_a"), "attn_q_a_norm", mla.norm_eps)
        q = layer.linear(compressed, "attn_q_b")
    q = graph.op("Mul", q, graph.constant(mla.scale(layer.spec.rope), np.float32))
    q = graph.op("Reshape", q, graph.constant([0, heads, mla.qk_head_dim]))
    sizes = graph.constant([mla.qk_nope_head_dim, mla.qk_rope_head_dim])
    nope, rope = graph.ops("Split", q, sizes, n_outputs=2, axis=2)
    rope = _rotate(graph, mla, rope, heads, angles)
    rope = graph.op("Reshape", rope, graph.constant([0, heads, mla.qk_rope_head_dim]))
    rows = graph.op("Concat", layer.per_head(nope, "attn_k_b"), rope, axis=2)
    return graph.op("Reshape", rows, graph.constant([-1, mla.latent_dim]), name="query")


def _attend(layer: Layer, mla: LatentAttentionSpec, query: Value, past: Value, rows: Value, mask: Value) -> Value:
    """Weighted sum of latents for every query and head: ``["n", heads, kv_lora_rank]``."""
    graph, heads, rank = layer.graph, mla.n_heads, mla.kv_lora_rank
    # MatMul, because onnxruntime fuses Gemm and Transpose to query @ past.T, which copies the cache
    old = graph.op("MatMul", past, graph.op("Transpose", query, perm=[1, 0]), name="past_scores")
    old = graph.op("Transpose", old, perm=[1, 0])
    new = graph.op("Gemm", query, rows, transB=1, name="new_scores")
    n = graph.op("Shape", rows, end=1)
    by_query = graph.op("Concat", n, graph.constant([heads]), n, axis=0)
    masked = graph.op("Add", graph.op("Reshape", new, by_query), mask)
    new = graph.op("Reshape", masked, graph.op("Shape", new))
    probs = graph.op("Softmax", graph.op("Concat", old, new, axis=1))
    n_rows = graph.op("Concat", graph.op("Shape", past, end=1), n, axis=0)
    old, new = graph.ops("Split", probs, n_rows, n_outputs=2, axis=1)
    of_past = graph.op("MatMul", old, past, name="past_mix")
    of_new = graph.op("MatMul", new, rows, name="new_mix")
    output = graph.op("Add", of_past, of_new)
    latents = graph.op("Slice", output, graph.constant([0]), graph.constant([rank]), graph.constant([1]))
    return graph.op("Reshape", latents, graph.constant([-1, heads, rank]))


def _rotate(graph: GraphBuilder, mla: LatentAttentionSpec, x: Value, heads: int, angles: Angles) -> Value:
    """RoPE of ``x``: ``["n", heads * qk_rope_head_dim]``; ``x`` may have a separate axis of heads."""
    width = heads * mla.qk_rope_head_dim
    batch = graph.op("Reshape", x, graph.constant([1, -1, width]))
    rotated = angles.rotate(graph, batch, heads, mla.qk_rope_head_dim)
    return graph.op("Reshape", rotated, graph.constant([-1, width]))
