"""Which tensors an architecture is made of: canonical name -> shape, in the order of the forward pass.

The names are GGUF's (llama.cpp's ``LLM_TENSOR_NAMES``); shapes are in C order, ``(out, in)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sprat.runtime.arch.spec import FrequencyFactors, MLASpec, ModelSpec, MoESpec

__all__ = ["ROPE_FREQS", "expected_tensors", "tensor_role"]

ROPE_FREQS = "rope_freqs.weight"  # divisors of the rotary frequencies; a checkpoint computes it from its config

Named = tuple[str, tuple[int, ...]]


def expected_tensors(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor that a model of ``spec`` consists of, no more and no less.

    Returns:
        Canonical name -> shape. ``output.weight`` is absent when the embeddings are tied, :data:`ROPE_FREQS` is present
        when the spec holds :class:`~sprat.runtime.arch.spec.FrequencyFactors`.
    """
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (spec.vocab_size, spec.hidden_size)}
    if isinstance(spec.rope.scaling, FrequencyFactors):
        tensors[ROPE_FREQS] = (spec.rope.dim // 2,)
    for layer in range(spec.n_layers):
        tensors.update((f"blk.{layer}.{name}", shape) for name, shape in _layer(spec, layer))
    tensors["output_norm.weight"] = (spec.hidden_size,)
    if not spec.tied_embeddings:
        tensors["output.weight"] = (spec.vocab_size, spec.hidden_size)
    return tensors


def tensor_role(name: str) -> str:
    """What a tensor is in any layer.

    Example:
        >>> tensor_role("blk.3.ffn_down_exps.weight")
        'ffn_down_exps'
    """
    return re.sub(r"^blk\.\d+\.|\.weight$", "", name)


def _layer(spec: ModelSpec, layer: int) -> Iterator[Named]:
    yield "attn_norm.weight", (spec.hidden_size,)
    yield from _latent_attention(spec, spec.mla) if spec.mla else _grouped_attention(spec)
    yield "ffn_norm.weight", (spec.hidden_size,)
    if spec.moe and spec.is_mixture(layer):
        yield from _mixture(spec, spec.moe)
    else:
        yield from _mlp("", spec.intermediate_size, spec.hidden_size)


def _grouped_attention(spec: ModelSpec) -> Iterator[Named]:
    q_width, kv_width = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    for name, width in (("attn_q", q_width), ("attn_k", kv_width), ("attn_v", kv_width)):
        yield f"{name}.weight", (width, spec.hidden_size)
        if spec.attention_bias:
            yield f"{name}.bias", (width,)
    yield "attn_output.weight", (spec.hidden_size, q_width)


def _latent_attention(spec: ModelSpec, mla: MLASpec) -> Iterator[Named]:
    q_width = spec.n_heads * mla.qk_head_dim
    if mla.q_lora_rank is None:
        yield "attn_q.weight", (q_width, spec.hidden_size)
    else:
        yield "attn_q_a.weight", (mla.q_lora_rank, spec.hidden_size)
        yield "attn_q_a_norm.weight", (mla.q_lora_rank,)
        yield "attn_q_b.weight", (q_width, mla.q_lora_rank)
    yield "attn_kv_a_mqa.weight", (mla.latent_dim, spec.hidden_size)
    yield "attn_kv_a_norm.weight", (mla.kv_lora_rank,)
    yield "attn_k_b.weight", (spec.n_heads, mla.kv_lora_rank, mla.qk_nope_head_dim)
    yield "attn_v_b.weight", (spec.n_heads, mla.v_head_dim, mla.kv_lora_rank)
    yield "attn_output.weight", (spec.hidden_size, spec.n_heads * mla.v_head_dim)


def _mixture(spec: ModelSpec, moe: MoESpec) -> Iterator[Named]:
    yield "ffn_gate_inp.weight", (moe.n_routed_experts, spec.hidden_size)
    if moe.correction_bias:
        yield "exp_probs_b.bias", (moe.n_routed_experts,)
    yield from _mlp("_exps", moe.expert_width, spec.hidden_size, moe.n_routed_experts)
    if moe.n_shared_experts:
        yield from _mlp("_shexp", moe.n_shared_experts * moe.expert_width, spec.hidden_size)


def _mlp(suffix: str, width: int, hidden_size: int, *stacked: int) -> Iterator[Named]:
    yield f"ffn_gate{suffix}.weight", (*stacked, width, hidden_size)
    yield f"ffn_up{suffix}.weight", (*stacked, width, hidden_size)
    yield f"ffn_down{suffix}.weight", (*stacked, hidden_size, width)
