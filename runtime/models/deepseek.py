"""DeepSeek-V2 (arXiv 2405.04434) and V3/R1 (arXiv 2412.19437): latent attention, then a mixture of experts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from sprat.quant.formats.block import F32Array
from sprat.runtime.cache import Cache, LatentCache, Storage
from sprat.runtime.kernels import MLP, Kernels
from sprat.runtime.models.model import LayerWeights, Model, RoutingObserver
from sprat.runtime.rope import RopeAngles, yarn_magnitude
from sprat.runtime.spec import Architecture, MLASpec, ModelSpec, MoESpec, YarnScaling

__all__ = ["DeepSeek", "MLAForm", "cheaper_form"]

MLAForm = Literal["expanded", "absorbed"]

_UNPACKED_ROWS = 340  # unpacking k_b and v_b takes as long as expanding so many rows: measured for V2-Lite in Q4_0


class Attention:
    """Queries per head; keys and values come from one latent per token, which is all that the cache keeps."""

    def __init__(self, spec: ModelSpec, mla: MLASpec, weights: LayerWeights, layer: int) -> None:
        self._mla, self._layer, self._eps = mla, layer, spec.rms_norm_eps
        self._scale = attention_scale(spec, mla)
        self._q = weights.matrix("attn_q" if mla.q_lora_rank is None else "attn_q_b")
        if mla.q_lora_rank is not None:
            self._q_a, self._q_a_norm = weights.matrix("attn_q_a"), weights.gain("attn_q_a_norm")
        self._kv_a, self._kv_a_norm = weights.matrix("attn_kv_a_mqa"), weights.gain("attn_kv_a_norm")
        self._k_b, self._v_b = weights.matrix("attn_k_b"), weights.matrix("attn_v_b")
        self._output = weights.matrix("attn_output")

    def __call__(
        self, x: F32Array, angles: RopeAngles, cache: LatentCache, kernels: Kernels, form: MLAForm
    ) -> F32Array:
        """Attend from ``x (n, hidden)`` to everything before it."""
        n, mla = len(x), self._mla
        compressed = x
        if mla.q_lora_rank is not None:
            compressed = kernels.rms_norm(kernels.linear(x, self._q_a), self._q_a_norm, self._eps)
        q = kernels.linear(compressed, self._q).reshape(n, -1, mla.qk_head_dim)  # (n, heads, nope + rope)
        kernels.rope(q[..., mla.qk_nope_head_dim :], angles)
        kv = kernels.linear(x, self._kv_a)
        latent, k_rope = kv[:, : mla.kv_lora_rank], kv[:, mla.kv_lora_rank :]
        kernels.rope(k_rope[:, None], angles)
        rows = cache.append(self._layer, kernels.rms_norm(latent, self._kv_a_norm, self._eps), k_rope)
        attend = kernels.mla_expanded if form == "expanded" else kernels.mla_absorbed
        mixed = attend(q, rows, self._k_b, self._v_b, self._scale)  # (n, heads, v_head_dim)
        return kernels.linear(mixed.reshape(n, -1), self._output)


class DenseMLP:
    """The first layers have no experts."""

    def __init__(self, weights: LayerWeights) -> None:
        self._mlp = _mlp(weights, "")

    def __call__(self, x: F32Array, kernels: Kernels, observe: RoutingObserver | None) -> F32Array:
        """The MLP of ``x (n, hidden)``."""
        return kernels.swiglu(x, self._mlp)


class Mixture:
    """A router sends each token to a few experts; the shared experts see every token."""

    def __init__(self, moe: MoESpec, weights: LayerWeights, layer: int) -> None:
        self._moe, self._layer = moe, layer
        self._router = weights.matrix("ffn_gate_inp")
        self._bias = weights.bias("exp_probs_b") if moe.correction_bias else None
        self._routed = _mlp(weights, "_exps")
        self._shared = _mlp(weights, "_shexp") if moe.n_shared_experts else None

    def __call__(self, x: F32Array, kernels: Kernels, observe: RoutingObserver | None) -> F32Array:
        """The mixture of ``x (n, hidden)``."""
        routes = kernels.route(kernels.linear(x, self._router), self._moe, self._bias)
        if observe:
            observe(self._layer, routes.experts)
        return kernels.experts(x, routes, self._routed, self._shared)


class Block:
    """One layer: ``x += attention(norm(x)); x += mlp(norm(x))``."""

    def __init__(self, spec: ModelSpec, mla: MLASpec, weights: LayerWeights, layer: int) -> None:
        self._eps = spec.rms_norm_eps
        self._attention_norm = weights.gain("attn_norm")
        self._attention = Attention(spec, mla, weights, layer)
        self._mlp_norm = weights.gain("ffn_norm")
        mixture = spec.moe if spec.is_mixture(layer) else None
        self._mlp = Mixture(mixture, weights, layer) if mixture else DenseMLP(weights)

    def __call__(
        self,
        x: F32Array,
        angles: RopeAngles,
        cache: LatentCache,
        kernels: Kernels,
        form: MLAForm,
        observe: RoutingObserver | None,
    ) -> F32Array:
        """Hidden states after the layer, ``(n, hidden)``: ``x`` itself, so that nothing of its size is made anew."""
        x += self._attention(kernels.rms_norm(x, self._attention_norm, self._eps), angles, cache, kernels, form)
        x += self._mlp(kernels.rms_norm(x, self._mlp_norm, self._eps), kernels, observe)
        return x


class DeepSeek(Model, architecture=Architecture.DEEPSEEK2):
    """Blocks over a :class:`~sprat.runtime.cache.LatentCache`.

    Attributes:
        form: which form of attention to use; ``None`` takes the cheaper one for each call.
    """

    form: MLAForm | None = None

    def new_cache(self, capacity: int, storage: Storage = "f32") -> LatentCache:
        """Latents of ``capacity`` tokens."""
        return LatentCache(self._mla, self.spec.n_layers, capacity, storage)

    @property
    def _mla(self) -> MLASpec:
        assert self.spec.mla is not None, "a deepseek2 spec has MLA"
        return self.spec.mla

    def _load_layers(self, layers: Sequence[LayerWeights]) -> None:
        self._blocks = [Block(self.spec, self._mla, weights, layer) for layer, weights in enumerate(layers)]

    def _run_layers(self, x: F32Array, angles: RopeAngles, cache: Cache, observe: RoutingObserver | None) -> F32Array:
        assert isinstance(cache, LatentCache), "the cache was made by another model"
        form = self.form or cheaper_form(self._mla, len(x), cache.length + len(x))
        for block in self._blocks:
            x = block(x, angles, cache, self.kernels, form, observe)
        return x


def attention_scale(spec: ModelSpec, mla: MLASpec) -> float:
    """Factor on the scores: ``qk_head_dim ** -0.5``, under YaRN times ``m(factor, mscale_all_dim) ** 2``."""
    yarn = spec.rope.scaling
    magnitude = yarn_magnitude(yarn.factor, yarn.mscale_all_dim) if isinstance(yarn, YarnScaling) else 1.0
    return magnitude**2 / math.sqrt(mla.qk_head_dim)


def cheaper_form(mla: MLASpec, n_new: int, n_rows: int) -> MLAForm:
    """The form with fewer multiplications per head, for ``n_new`` queries over ``n_rows`` rows of the cache.

    Expanding costs once per row, and once for the matrices, and makes scores cheap; absorbing costs once per query
    and makes scores dear.
    """
    projection = mla.kv_lora_rank * (mla.qk_nope_head_dim + mla.v_head_dim)
    expanded = (n_rows + _UNPACKED_ROWS) * projection + n_new * n_rows * (mla.qk_head_dim + mla.v_head_dim)
    absorbed = n_new * projection + n_new * n_rows * (mla.latent_dim + mla.kv_lora_rank)
    return "expanded" if expanded < absorbed else "absorbed"


def _mlp(weights: LayerWeights, suffix: str) -> MLP:
    return MLP(*(weights.matrix(f"ffn_{part}{suffix}") for part in ("gate", "up", "down")))
