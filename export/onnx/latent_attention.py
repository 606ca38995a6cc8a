"""Multi-head latent attention (arXiv 2405.04434) over a cache of latents, which the graph reads and never copies.

The caller owns the rows of the past; the graph returns those of the new tokens. Scores and mixtures are computed for
the two apart, and meet in one softmax::

    scores = [past; new] @ q'      q' (latent_dim, n * heads): the query, k_b absorbed
    mixed  = past.T @ p_past + new.T @ p_new

Queries stand in columns: the cache is the left operand both times, which onnxruntime reads where it lies.
"""

from __future__ import annotations

import numpy as np

from sprat.export.onnx.graph import GraphBuilder, Value
from sprat.export.onnx.norms import rms_norm
from sprat.export.onnx.positions import Angles
from sprat.export.onnx.weights import GraphWeights
from sprat.runtime.models.deepseek import attention_scale
from sprat.runtime.spec import MLASpec, ModelSpec

__all__ = ["latent_attention"]


def latent_attention(
    graph: GraphBuilder,
    weights: GraphWeights,
    spec: ModelSpec,
    layer: int,
    x: Value,
    past: Value,
    angles: Angles,
    mask: Value,
) -> tuple[Value, Value]:
    """One layer's attention.

    Args:
        graph: where to.
        weights: of the model.
        spec: with MLA.
        layer: its number.
        x: normed hidden states ``["n", hidden]``.
        past: rows of the cache ``["past", latent_dim]``.
        angles: of the new tokens.
        mask: among the new tokens, ``["n" keys, "n" queries, 1]``.

    Returns:
        What is added to the hidden states ``["n", hidden]``, and the cache's new rows ``["n", latent_dim]``.
    """
    assert spec.mla is not None, "a deepseek2 spec has MLA"
    with graph.scope("attn"):
        rows = _new_rows(graph, weights, spec, spec.mla, layer, x, angles)
        query = _absorbed_query(graph, weights, spec, spec.mla, layer, x, angles)
        mixed = _attend(graph, spec, spec.mla, query, past, rows, mask)
        values = weights.per_head(mixed, f"blk.{layer}.attn_v_b")
        flat = graph.op("Reshape", values, graph.constant([0, spec.n_heads * spec.mla.v_head_dim]))
        return weights.linear(flat, f"blk.{layer}.attn_output"), rows


def _new_rows(
    graph: GraphBuilder, weights: GraphWeights, spec: ModelSpec, mla: MLASpec, layer: int, x: Value, angles: Angles
) -> Value:
    """``[norm(latent), rotated key]`` of the new tokens."""
    kv = weights.linear(x, f"blk.{layer}.attn_kv_a_mqa")
    sizes = graph.constant([mla.kv_lora_rank, mla.qk_rope_head_dim])
    latent, key = graph.ops("Split", kv, sizes, n_outputs=2, axis=1)
    gain = weights.vector(f"blk.{layer}.attn_kv_a_norm.weight")
    latent = rms_norm(graph, latent, gain, spec.rms_norm_eps, portable=weights.options.portable)
    return graph.op("Concat", latent, _rotate(graph, mla, key, 1, angles), axis=1, name="new_rows")


def _absorbed_query(
    graph: GraphBuilder, weights: GraphWeights, spec: ModelSpec, mla: MLASpec, layer: int, x: Value, angles: Angles
) -> Value:
    """Queries against rows of the cache, scaled: ``[latent_dim, "n" * heads]``."""
    name = f"blk.{layer}.attn_q"
    if mla.q_lora_rank is not None:
        compressed = weights.linear(x, f"{name}_a")
        gain = weights.vector(f"{name}_a_norm.weight")
        x = rms_norm(graph, compressed, gain, spec.rms_norm_eps, portable=weights.options.portable)
        name = f"{name}_b"
    q = graph.op("Reshape", weights.linear(x, name), graph.constant([0, spec.n_heads, mla.qk_head_dim]))
    q = graph.op("Mul", q, graph.constant(attention_scale(spec, mla), np.float32))
    sizes = graph.constant([mla.qk_nope_head_dim, mla.qk_rope_head_dim])
    nope, rope = graph.ops("Split", q, sizes, n_outputs=2, axis=2)
    absorbed = weights.per_head(nope, f"blk.{layer}.attn_k_b")
    rope = _rotate(graph, mla, rope, spec.n_heads, angles)
    rope = graph.op("Reshape", rope, graph.constant([0, spec.n_heads, mla.qk_rope_head_dim]))
    rows = graph.op("Concat", absorbed, rope, axis=2)
    rows = graph.op("Reshape", rows, graph.constant([-1, mla.latent_dim]))
    return graph.op("Transpose", rows, perm=[1, 0], name="query")


def _attend(
    graph: GraphBuilder, spec: ModelSpec, mla: MLASpec, query: Value, past: Value, rows: Value, mask: Value
) -> Value:
    """Latents mixed for every query and head: ``["n", heads, kv_lora_rank]``."""
    old = graph.op("MatMul", past, query, name="past_scores")
    new = graph.op("MatMul", rows, query, name="new_scores")
    n = graph.op("Shape", rows, end=1)
    by_query = graph.op("Concat", n, n, graph.constant([spec.n_heads]), axis=0)
    new = graph.op("Add", graph.op("Reshape", new, by_query), mask)
    new = graph.op("Reshape", new, graph.op("Concat", n, graph.constant([-1]), axis=0))
    shares = graph.op("Softmax", graph.op("Concat", old, new, axis=0), axis=0)
    n_rows = graph.op("Concat", graph.op("Shape", past, end=1), n, axis=0)
    old, new = graph.ops("Split", shares, n_rows, n_outputs=2, axis=0)
    mixed = graph.op(
        "Add", graph.op("Gemm", past, old, transA=1, name="past_mix"), graph.op("Gemm", rows, new, transA=1)
    )
    latents = graph.op("Slice", mixed, graph.constant([0]), graph.constant([mla.kv_lora_rank]))
    latents = graph.op("Reshape", latents, graph.constant([mla.kv_lora_rank, -1, spec.n_heads]))
    return graph.op("Transpose", latents, perm=[1, 2, 0])


def _rotate(graph: GraphBuilder, mla: MLASpec, x: Value, heads: int, angles: Angles) -> Value:
    """``["n", heads * qk_rope_head_dim]``, rotated; ``x`` may have the heads on an axis of their own."""
    width = heads * mla.qk_rope_head_dim
    batch = graph.op("Reshape", x, graph.constant([1, -1, width]))
    rotated = angles.rotate(graph, batch, heads, mla.qk_rope_head_dim)
    return graph.op("Reshape", rotated, graph.constant([-1, width]))
