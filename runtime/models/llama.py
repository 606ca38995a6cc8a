"""Llama (arXiv 2407.21783), as DeepSeek-R1-Distill-Llama: grouped-query attention, then a gated MLP."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.arrays import F32Array
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.arch.spec import Architecture, ModelSpec
from sprat.runtime.cache import Cache, KVCache, Storage
from sprat.runtime.kernels import GroupedAttention, Kernels
from sprat.runtime.models.model import LayerWeights, Model, RoutingObserver, gated_mlp

__all__ = ["Llama"]


class Block:
    """One layer: ``x += attention(norm(x)); x += mlp(norm(x))``."""

    def __init__(self, spec: ModelSpec, weights: LayerWeights, index: int) -> None:
        self._index = index
        self._attention = _attention(spec, weights)
        self._mlp = gated_mlp(spec, weights)

    def __call__(self, x: F32Array, angles: RopeAngles, cache: KVCache, kernels: Kernels) -> None:
        """Add the layer to the hidden states ``x (n, hidden)``."""
        kernels.grouped_attention(x, self._attention, angles, cache, self._index)
        kernels.gated_mlp(x, self._mlp)


class Llama(Model, architecture=Architecture.LLAMA):
    """Blocks over a :class:`~sprat.runtime.cache.KVCache`."""

    def new_cache(self, capacity: int, storage: Storage = "f32") -> KVCache:
        """Keys and values of ``capacity`` tokens."""
        return KVCache(self.spec, capacity, storage)

    def _load_layers(self, layers: Sequence[LayerWeights]) -> None:
        self._blocks = [Block(self.spec, weights, index) for index, weights in enumerate(layers)]

    def _run_layers(self, x: F32Array, angles: RopeAngles, cache: Cache, observe: RoutingObserver | None) -> None:
        assert isinstance(cache, KVCache), "the cache was made by another model"
        for block in self._blocks:
            block(x, angles, cache, self.kernels)


def _attention(spec: ModelSpec, weights: LayerWeights) -> GroupedAttention:
    q, k, v = (weights.matrix(name) for name in ("attn_q", "attn_k", "attn_v"))
    q_bias, k_bias, v_bias = (
        weights.bias(name) if spec.attention_bias else None for name in ("attn_q", "attn_k", "attn_v")
    )
    return GroupedAttention(
        norm=weights.gain("attn_norm"),
        q=q,
        k=k,
        v=v,
        q_bias=q_bias,
        k_bias=k_bias,
        v_bias=v_bias,
        output=weights.matrix("attn_output"),
        head_dim=spec.head_dim,
        eps=spec.rms_norm_eps,
        scale=spec.head_dim**-0.5,
    )
