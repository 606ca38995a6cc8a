"""DeepSeek-V2 (arXiv 2405.04434) and V3/R1 (arXiv 2412.19437): latent attention, then a mixture of experts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from sprat.arrays import F32Array
from sprat.runtime.arch.rope import RopeAngles, yarn_magnitude
from sprat.runtime.arch.spec import Architecture, MLASpec, ModelSpec, MoESpec, YarnScaling
from sprat.runtime.cache import Cache, LatentCache, Storage
from sprat.runtime.kernels import Kernels, LatentAttention, Mixture, MLAForm
from sprat.runtime.models.model import LayerWeights, Model, RoutingObserver, gated_mlp

__all__ = ["DeepSeek", "attention_scale", "cheaper_form"]

_UNPACKED_ROWS = 105  # unpacking k_b and v_b takes as long as expanding so many rows: measured for V2-Lite in Q4_0


class Block:
    """One layer: ``x += attention(norm(x)); x += mlp(norm(x))``."""

    def __init__(self, spec: ModelSpec, mla: MLASpec, weights: LayerWeights, index: int) -> None:
        self._index = index
        self._attention = _attention(spec, mla, weights)
        self._mlp = (
            _mixture(spec, spec.moe, weights) if spec.moe and spec.is_mixture(index) else gated_mlp(spec, weights)
        )

    def __call__(
        self,
        x: F32Array,
        angles: RopeAngles,
        cache: LatentCache,
        kernels: Kernels,
        form: MLAForm,
        observe: RoutingObserver | None,
    ) -> None:
        """Add the layer to the hidden states ``x (n, hidden)``."""
        kernels.latent_attention(x, self._attention, angles, cache, self._index, form)
        if isinstance(self._mlp, Mixture):
            kernels.mixture(x, self._mlp, partial(observe, self._index) if observe else None)
        else:  # the first layers have no experts
            kernels.gated_mlp(x, self._mlp)


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
        self._blocks = [Block(self.spec, self._mla, weights, index) for index, weights in enumerate(layers)]

    def _run_layers(self, x: F32Array, angles: RopeAngles, cache: Cache, observe: RoutingObserver | None) -> None:
        assert isinstance(cache, LatentCache), "the cache was made by another model"
        form = self.form or cheaper_form(self._mla, len(x), cache.length + len(x))
        for block in self._blocks:
            block(x, angles, cache, self.kernels, form, observe)


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


def _attention(spec: ModelSpec, mla: MLASpec, weights: LayerWeights) -> LatentAttention:
    compressed = mla.q_lora_rank is not None
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
        scale=attention_scale(spec, mla),
    )


def _mixture(spec: ModelSpec, moe: MoESpec, weights: LayerWeights) -> Mixture:
    return Mixture(
        norm=weights.gain("ffn_norm"),
        router=weights.matrix("ffn_gate_inp"),
        bias=weights.bias("exp_probs_b") if moe.correction_bias else None,
        moe=moe,
        routed=weights.mlp("_exps"),
        shared=weights.mlp("_shexp") if moe.n_shared_experts else None,
        eps=spec.rms_norm_eps,
    )
