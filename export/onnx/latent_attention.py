"""Multi-head latent attention (arXiv 2405.04434) over a cache of latents, which the graph reads and never copies.

The caller owns the rows of the past; the graph returns those of the new tokens. Scores and mixtures are computed for
the two apart, and meet in one softmax::

    scores = [(past @ q.T).T, q @ new.T]      q (n * heads, latent_dim): the query, k_b absorbed
    mixed  = p_past @ past + p_new @ new

For the scores the cache is the left operand, which onnxruntime reads where it lies; ``q @ past.T`` would turn all of it
around (0.55 ms behind 2048 rows of V2-Lite's, instead of 0.32). For the mixture it is the right one, which onnxruntime
copies panel by panel: still less than reading it by columns, as ``past.T @ p.T`` does. The few numbers between are
turned so that the softmax runs along rows.
"""

from __future__ import annotations

import numpy as np

from sprat.export.onnx.graph import GraphBuilder, Value
from sprat.export.onnx.layer import Layer
from sprat.export.onnx.positions import Angles
from sprat.runtime.arch.spec import MLASpec
from sprat.runtime.models.deepseek import attention_scale

__all__ = ["latent_attention"]


def latent_attention(layer: Layer, x: Value, past: Value, angles: Angles, mask: Value) -> tuple[Value, Value]:
    """One layer's attention.

    Args:
        layer: of a model with MLA.
        x: normed hidden states ``["n", hidden]``.
        past: rows of the cache ``["past", latent_dim]``.
        angles: of the new tokens.
        mask: among the new tokens, ``["n" queries, 1, "n" keys]``.

    Returns:
        What is added to the hidden states ``["n", hidden]``, and the cache's new rows ``["n", latent_dim]``.
    """
    graph, spec, mla = layer.graph, layer.spec, layer.spec.mla
    assert mla is not None, "a deepseek2 spec has MLA"
    with graph.scope("attn"):
        rows = _new_rows(layer, mla, x, angles)
        query = _absorbed_query(layer, mla, x, angles)
        mixed = _attend(layer, mla, query, past, rows, mask)
        values = layer.per_head(mixed, "attn_v_b")
        flat = graph.op("Reshape", values, graph.constant([0, spec.n_heads * mla.v_head_dim]))
        return layer.linear(flat, "attn_output"), rows


def _new_rows(layer: Layer, mla: MLASpec, x: Value, angles: Angles) -> Value:
    """``[norm(latent), rotated key]`` of the new tokens."""
    graph = layer.graph
    sizes = graph.constant([mla.kv_lora_rank, mla.qk_rope_head_dim])
    latent, key = graph.ops("Split", layer.linear(x, "attn_kv_a_mqa"), sizes, n_outputs=2, axis=1)
    rotated = _rotate(graph, mla, key, 1, angles)
    return graph.op("Concat", layer.norm(latent, "attn_kv_a_norm"), rotated, axis=1, name="new_rows")


def _absorbed_query(layer: Layer, mla: MLASpec, x: Value, angles: Angles) -> Value:
    """Queries against rows of the cache, scaled: ``["n" * heads, latent_dim]``."""
    graph, heads = layer.graph, layer.spec.n_heads
    if mla.q_lora_rank is None:
        q = layer.linear(x, "attn_q")
    else:
        q = layer.linear(layer.norm(layer.linear(x, "attn_q_a"), "attn_q_a_norm"), "attn_q_b")
    q = graph.op("Mul", q, graph.constant(attention_scale(layer.spec, mla), np.float32))
    q = graph.op("Reshape", q, graph.constant([0, heads, mla.qk_head_dim]))
    sizes = graph.constant([mla.qk_nope_head_dim, mla.qk_rope_head_dim])
    nope, rope = graph.ops("Split", q, sizes, n_outputs=2, axis=2)
    rope = _rotate(graph, mla, rope, heads, angles)
    rope = graph.op("Reshape", rope, graph.constant([0, heads, mla.qk_rope_head_dim]))
    rows = graph.op("Concat", layer.per_head(nope, "attn_k_b"), rope, axis=2)
    return graph.op("Reshape", rows, graph.constant([-1, mla.latent_dim]), name="query")


def _attend(layer: Layer, mla: MLASpec, query: Value, past: Value, rows: Value, mask: Value) -> Value:
    """Latents mixed for every query and head: ``["n", heads, kv_lora_rank]``."""
    graph, heads, rank = layer.graph, layer.spec.n_heads, mla.kv_lora_rank
    # MatMul: of a Gemm with a Transpose onnxruntime makes query @ past.T, and copies the cache to do that
    old = graph.op("MatMul", past, graph.op("Transpose", query, perm=[1, 0]), name="past_scores")
    old = graph.op("Transpose", old, perm=[1, 0])
    new = graph.op("Gemm", query, rows, transB=1, name="new_scores")
    n = graph.op("Shape", rows, end=1)
    by_query = graph.op("Concat", n, graph.constant([heads]), n, axis=0)
    masked = graph.op("Add", graph.op("Reshape", new, by_query), mask)
    new = graph.op("Reshape", masked, graph.op("Shape", new))
    shares = graph.op("Softmax", graph.op("Concat", old, new, axis=1))
    n_rows = graph.op("Concat", graph.op("Shape", past, end=1), n, axis=0)
    old, new = graph.ops("Split", shares, n_rows, n_outputs=2, axis=1)
    of_past = graph.op("MatMul", old, past, name="past_mix")
    of_new = graph.op("MatMul", new, rows, name="new_mix")
    mixed = graph.op("Add", of_past, of_new)
    latents = graph.op("Slice", mixed, graph.constant([0]), graph.constant([rank]), graph.constant([1]))
    return graph.op("Reshape", latents, graph.constant([-1, heads, rank]))


def _rotate(graph: GraphBuilder, mla: MLASpec, x: Value, heads: int, angles: Angles) -> Value:
    """``["n", heads * qk_rope_head_dim]``, rotated; ``x`` may have the heads on an axis of their own."""
    width = heads * mla.qk_rope_head_dim
    batch = graph.op("Reshape", x, graph.constant([1, -1, width]))
    rotated = angles.rotate(graph, batch, heads, mla.qk_rope_head_dim)
    return graph.op("Reshape", rotated, graph.constant([-1, width]))
