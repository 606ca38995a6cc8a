"""The sublayers of a model as records: the arguments of a kernel call except activations and cache.

Records are immutable: an implementation may convert one once and keep the result. The C++ structs of the same names
(``runtime/native/layers.hpp``) read these fields by name: rename fields in both.
"""

from __future__ import annotations

from dataclasses import dataclass

from sprat.arrays import F32Array
from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.weights import Weight

__all__ = ["MLP", "GatedMLP", "GroupedAttention", "Head", "LatentAttention", "MoE", "Sublayer"]


@dataclass(frozen=True, slots=True, eq=False)
class MLP:
    """A gated MLP, ``down(silu(gate(x)) * up(x))``; with a leading axis on each weight, one MLP per expert."""

    gate: Weight  # (width, hidden) or (n_experts, width, hidden)
    up: Weight
    down: Weight  # (hidden, width) or (n_experts, hidden, width)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (arXiv 2405.04434): keys and values are up-projections of one latent per token."""

    norm: F32Array  # (hidden,)
    q_a: Weight | None  # (q_lora_rank, hidden); None if queries are not compressed
    q_a_norm: F32Array | None  # (q_lora_rank,)
    q: Weight  # (heads * head_dim, q_lora_rank or hidden)
    kv_a: Weight  # (kv_lora_rank + qk_rope_head_dim, hidden)
    kv_a_norm: F32Array  # (kv_lora_rank,)
    k_b: Weight  # (heads, kv_lora_rank, qk_nope_head_dim)
    v_b: Weight  # (heads, v_head_dim, kv_lora_rank)
    output: Weight  # (hidden, heads * v_head_dim)
    eps: float
    latent_eps: float  # of q_a_norm and kv_a_norm
    scale: float  # factor on the scores


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class GroupedAttention:
    """Grouped-query attention (arXiv 2305.13245): each group of query heads shares one KV head."""

    norm: F32Array  # (hidden,)
    q: Weight  # (heads * head_dim, hidden)
    k: Weight  # (kv_heads * head_dim, hidden)
    v: Weight
    q_bias: F32Array | None
    k_bias: F32Array | None
    v_bias: F32Array | None
    q_norm: F32Array | None  # (head_dim,), RMSNorm of each head before RoPE
    k_norm: F32Array | None
    output: Weight  # (hidden, heads * head_dim)
    head_dim: int
    eps: float
    scale: float  # factor on the scores


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class GatedMLP:
    """A dense MLP with its norm."""

    norm: F32Array  # (hidden,)
    mlp: MLP
    eps: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MoE:
    """An MoE sublayer: router, routed experts, and shared experts, which run for every token (arXiv 2401.06066)."""

    norm: F32Array  # (hidden,)
    router: Weight  # (n_routed_experts, hidden)
    bias: F32Array | None  # (n_routed_experts,), added to the scores for the top-k choice only
    moe: MoESpec
    routed: MLP
    shared: MLP | None
    eps: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Head:
    """The final norm and the output matrix: hidden states to logits."""

    norm: F32Array  # (hidden,)
    output: Weight  # (vocabulary, hidden)
    eps: float


Sublayer = LatentAttention | GroupedAttention | GatedMLP | MoE | Head
