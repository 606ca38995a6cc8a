"""The sublayers as sequences of steps, as in the papers.

An implementation without fused sublayers inherits these methods. Tracing runs them with any kernels, so that each step
is timed separately.
"""

from __future__ import annotations

from collections.abc import Sequence

from sprat.arrays import F32Array
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.cache import KVCache, LatentCache
from sprat.runtime.kernels.contract import ChoiceObserver, Kernels, MLAForm
from sprat.runtime.kernels.layers import GatedMLP, GroupedAttention, Head, LatentAttention, MoE

__all__ = ["StepByStep"]


class StepByStep:
    """Sublayers from the steps of :class:`~sprat.runtime.kernels.contract.Kernels`, which documents them."""

    def latent_attention(
        self: Kernels,
        x: F32Array,
        layer: LatentAttention,
        angles: RopeAngles,
        cache: LatentCache,
        index: int,
        form: MLAForm,
    ) -> None:
        """Queries per head, one latent per token for all heads, then expanded or absorbed MLA."""
        heads, rank, nope_dim = layer.k_b.shape
        normed = self.rms_norm(x, layer.norm, layer.eps)
        compressed = normed
        if layer.q_a is not None and layer.q_a_norm is not None:
            compressed = self.rms_norm(self.linear(normed, layer.q_a), layer.q_a_norm, layer.latent_eps)
        q = self.linear(compressed, layer.q).reshape(len(x), heads, -1)  # (n, heads, nope + rope)
        self.rope(q[..., nope_dim:], angles)
        kv = self.linear(normed, layer.kv_a)
        latent, k_rope = kv[:, :rank], kv[:, rank:]
        self.rope(k_rope[:, None], angles)
        entries = cache.append(index, self.rms_norm(latent, layer.kv_a_norm, layer.latent_eps), k_rope)
        attend = self.mla_expanded if form == "expanded" else self.mla_absorbed
        heads_out = attend(q, entries, layer.k_b, layer.v_b, layer.scale)  # (n, heads, v_head_dim)
        x += self.linear(heads_out.reshape(len(x), -1), layer.output)

    def grouped_attention(
        self: Kernels, x: F32Array, layer: GroupedAttention, angles: RopeAngles, cache: KVCache, index: int
    ) -> None:
        """Queries, keys and values per head; each group of query heads shares a KV head."""
        shape = (len(x), -1, layer.head_dim)
        normed = self.rms_norm(x, layer.norm, layer.eps)
        q = self.linear(normed, layer.q, layer.q_bias).reshape(shape)  # (n, heads, head_dim)
        k = self.linear(normed, layer.k, layer.k_bias).reshape(shape)  # (n, kv_heads, head_dim)
        v = self.linear(normed, layer.v, layer.v_bias).reshape(shape)
        if layer.q_norm is not None and layer.k_norm is not None:
            q = self.rms_norm(q.reshape(-1, layer.head_dim), layer.q_norm, layer.eps).reshape(shape)
            k = self.rms_norm(k.reshape(-1, layer.head_dim), layer.k_norm, layer.eps).reshape(shape)
        self.rope(q, angles)
        self.rope(k, angles)
        heads_out = self.gqa_attention(q, cache.append(index, k, v), layer.scale)
        x += self.linear(heads_out.reshape(len(x), -1), layer.output)

    def latent_attention_each(
        self: Kernels,
        x: F32Array,
        layer: LatentAttention,
        angles: RopeAngles,
        caches: Sequence[LatentCache],
        index: int,
        form: MLAForm,
    ) -> None:
        """Sequence by sequence."""
        for row, cache in enumerate(caches):
            self.latent_attention(x[row : row + 1], layer, angles.row(row), cache, index, form)

    def grouped_attention_each(
        self: Kernels,
        x: F32Array,
        layer: GroupedAttention,
        angles: RopeAngles,
        caches: Sequence[KVCache],
        index: int,
    ) -> None:
        """Sequence by sequence."""
        for row, cache in enumerate(caches):
            self.grouped_attention(x[row : row + 1], layer, angles.row(row), cache, index)

    def gated_mlp(self: Kernels, x: F32Array, layer: GatedMLP) -> None:
        """Norm, MLP, residual add."""
        x += self.swiglu(self.rms_norm(x, layer.norm, layer.eps), layer.mlp)

    def moe(self: Kernels, x: F32Array, layer: MoE, observe: ChoiceObserver | None = None) -> None:
        """Norm, router, top-k routing, experts, residual add."""
        normed = self.rms_norm(x, layer.norm, layer.eps)
        routes = self.route(self.linear(normed, layer.router), layer.moe, layer.bias)
        if observe:
            observe(routes.experts)
        x += self.experts(normed, routes, layer.routed, layer.shared)

    def logits(self: Kernels, x: F32Array, head: Head) -> F32Array:
        """Norm and output."""
        return self.linear(self.rms_norm(x, head.norm, head.eps), head.output)
