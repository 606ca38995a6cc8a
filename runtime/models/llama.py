"""Llama (arXiv 2407.21783), as DeepSeek-R1-Distill-Llama: grouped-query attention, then a gated MLP."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.quant.formats.block import F32Array
from sprat.runtime.cache import Cache, KVCache, Storage
from sprat.runtime.kernels import MLP, Kernels
from sprat.runtime.models.model import LayerWeights, Model, RoutingObserver
from sprat.runtime.rope import RopeAngles
from sprat.runtime.spec import Architecture, ModelSpec

__all__ = ["Llama"]


class Attention:
    """Each group of query heads shares one key and value head."""

    def __init__(self, spec: ModelSpec, weights: LayerWeights, layer: int) -> None:
        self._layer = layer
        self._head_dim = spec.head_dim
        self._scale = spec.head_dim**-0.5
        self._q, self._k, self._v = (weights.matrix(name) for name in ("attn_q", "attn_k", "attn_v"))
        self._q_bias, self._k_bias, self._v_bias = (
            weights.bias(name) if spec.attention_bias else None for name in ("attn_q", "attn_k", "attn_v")
        )
        self._output = weights.matrix("attn_output")

    def __call__(self, x: F32Array, angles: RopeAngles, cache: KVCache, kernels: Kernels) -> F32Array:
        """Attend from ``x (n, hidden)`` to everything before it."""
        n = len(x)
        q = kernels.linear(x, self._q, self._q_bias).reshape(n, -1, self._head_dim)  # (n, heads, head_dim)
        k = kernels.linear(x, self._k, self._k_bias).reshape(n, -1, self._head_dim)  # (n, kv_heads, head_dim)
        v = kernels.linear(x, self._v, self._v_bias).reshape(n, -1, self._head_dim)
        kernels.rope(q, angles)
        kernels.rope(k, angles)
        rows = cache.append(self._layer, k, v)
        return kernels.linear(kernels.gqa_attention(q, rows, self._scale).reshape(n, -1), self._output)


class Block:
    """One layer: ``x += attention(norm(x)); x += mlp(norm(x))``."""

    def __init__(self, spec: ModelSpec, weights: LayerWeights, layer: int) -> None:
        self._eps = spec.rms_norm_eps
        self._attention_norm = weights.gain("attn_norm")
        self._attention = Attention(spec, weights, layer)
        self._mlp_norm = weights.gain("ffn_norm")
        self._mlp = MLP(weights.matrix("ffn_gate"), weights.matrix("ffn_up"), weights.matrix("ffn_down"))

    def __call__(self, x: F32Array, angles: RopeAngles, cache: KVCache, kernels: Kernels) -> F32Array:
        """Hidden states after the layer, ``(n, hidden)``: ``x`` itself, so that nothing of its size is made anew."""
        x += self._attention(kernels.rms_norm(x, self._attention_norm, self._eps), angles, cache, kernels)
        x += kernels.swiglu(kernels.rms_norm(x, self._mlp_norm, self._eps), self._mlp)
        return x


class Llama(Model, architecture=Architecture.LLAMA):
    """Blocks over a :class:`~sprat.runtime.cache.KVCache`."""

    def new_cache(self, capacity: int, storage: Storage = "f32") -> KVCache:
        """Keys and values of ``capacity`` tokens."""
        return KVCache(self.spec, capacity, storage)

    def _load_layers(self, layers: Sequence[LayerWeights]) -> None:
        self._blocks = [Block(self.spec, weights, layer) for layer, weights in enumerate(layers)]

    def _run_layers(self, x: F32Array, angles: RopeAngles, cache: Cache, observe: RoutingObserver | None) -> F32Array:
        assert isinstance(cache, KVCache), "the cache was made by another model"
        for block in self._blocks:
            x = block(x, angles, cache, self.kernels)
        return x
