"""Attention in the forward pass, of every kind: weights, cache, kernel call."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.arrays import F32Array
from sprat.errors import ConfigError
from sprat.runtime.arch.attention import GroupedAttentionSpec, LatentAttentionSpec
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.cache import Cache, KVCache, LatentCache, Storage
from sprat.runtime.kernels import GroupedAttention, Kernels, LatentAttention, MLAForm
from sprat.runtime.models.layer_weights import LayerWeights

__all__ = ["attend", "attend_each", "load_attention", "new_cache"]


def new_cache(spec: ModelSpec, capacity: int, storage: Storage) -> Cache:
    """An empty cache for ``capacity`` tokens."""
    kind = LatentCache if isinstance(spec.attention, LatentAttentionSpec) else KVCache
    return kind(spec.attention.planes, spec.n_layers, capacity, storage)


def load_attention(spec: ModelSpec, weights: LayerWeights) -> GroupedAttention | LatentAttention:
    """The attention sublayer of a layer.

    Raises:
        ConfigError: there is no kernel for the kind of attention.
    """
    match spec.attention:
        case LatentAttentionSpec() as attention:
            return _latent(spec, attention, weights)
        case GroupedAttentionSpec() as attention:
            return _grouped(spec, attention, weights)
    raise ConfigError(f"{spec.architecture}: there is no kernel for {type(spec.attention).__name__}")


def attend(
    layer: GroupedAttention | LatentAttention,
    x: F32Array,
    angles: RopeAngles,
    cache: Cache,
    index: int,
    kernels: Kernels,
    form: MLAForm,
) -> None:
    """``x += attention(norm(x))`` in place, ``x (n, hidden)``; stores the new tokens' KV entries in layer ``index``.

    Args:
        layer: from :func:`load_attention`.
        x: hidden states.
        angles: RoPE angles of the new tokens.
        cache: from :func:`new_cache`.
        index: index of the layer.
        kernels: kernel implementation.
        form: expanded or absorbed MLA.
    """
    if isinstance(layer, LatentAttention):
        assert isinstance(cache, LatentCache), "the cache is from another model"
        kernels.latent_attention(x, layer, angles, cache, index, form)
    else:
        assert isinstance(cache, KVCache), "the cache is from another model"
        kernels.grouped_attention(x, layer, angles, cache, index)


def attend_each(
    layer: GroupedAttention | LatentAttention,
    x: F32Array,
    angles: RopeAngles,
    caches: Sequence[Cache],
    index: int,
    kernels: Kernels,
    form: MLAForm,
) -> None:
    """As :func:`attend`, for one token of each of several sequences: row ``i`` of ``x`` is of ``caches[i]``."""
    if isinstance(layer, LatentAttention):
        latents = [cache for cache in caches if isinstance(cache, LatentCache)]
        kernels.latent_attention_each(x, layer, angles, latents, index, form)
    else:
        keys = [cache for cache in caches if isinstance(cache, KVCache)]
        kernels.grouped_attention_each(x, layer, angles, keys, index)


def _grouped(spec: ModelSpec, attention: GroupedAttentionSpec, weights: LayerWeights) -> GroupedAttention:
    q, k, v = (weights.matrix(name) for name in ("attn_q", "attn_k", "attn_v"))
    q_bias, k_bias, v_bias = (weights.bias(name) if attention.bias else None for name in ("attn_q", "attn_k", "attn_v"))
    return GroupedAttention(
        norm=weights.gain("attn_norm"),
        q=q,
        k=k,
        v=v,
        q_bias=q_bias,
        k_bias=k_bias,
        v_bias=v_bias,
        q_norm=weights.gain("attn_q_norm") if attention.qk_norm else None,
        k_norm=weights.gain("attn_k_norm") if attention.qk_norm else None,
        output=weights.matrix("attn_output"),
        head_dim=attention.head_dim,
        eps=spec.rms_norm_eps,
        scale=attention.scale(spec.rope),
    )


def _latent(spec: ModelSpec, attention: LatentAttentionSpec, weights: LayerWeights) -> LatentAttention:
    compressed = attention.q_lora_rank is not None
    return LatentAttention(
        norm=weights.gain("attn_norm"),
        q_a=weights.matrix("attn_q_a") if compressed else None,
        q_a_norm=weights.gain("attn_q_a_norm") if compressed else None,
        q=weights.matrix("attn_q_b" if compressed else "attn_q"),
        kv_a=weights.matrix("attn_kv_a_mqa"),
        kv_a_norm=weights.gain("attn_kv_a_norm"),
        k_b=weights.matrix("attn_k_b"),
        v_b=weights.matrix("attn_v_b"),
        output=weights.matrix("attn_output"),
        eps=spec.rms_norm_eps,
        latent_eps=attention.norm_eps or spec.rms_norm_eps,
        scale=attention.scale(spec.rope),
    )
