"""One transformer layer: attention and MLP (dense or MoE), each with a norm and a residual add."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from sprat.arrays import F32Array, I32Array
from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.cache import Cache
from sprat.runtime.interrupt import check_interrupt
from sprat.runtime.kernels import GatedMLP, Kernels, MLAForm, MoE
from sprat.runtime.models.attention import attend, attend_each, load_attention
from sprat.runtime.models.layer_weights import LayerWeights

__all__ = ["Block", "RoutingObserver"]

RoutingObserver: TypeAlias = Callable[[int, I32Array], None]
"""Called with the index of an MoE layer and the expert ids of the routing, ``(n, n_experts_per_token)``."""


class Block:
    """``x += attention(norm(x)); x += mlp(norm(x))``."""

    def __init__(self, spec: ModelSpec, weights: LayerWeights, index: int) -> None:
        self._index = index
        self._attention = load_attention(spec, weights)
        moe = spec.moe if spec.is_moe_layer(index) else None
        self._mlp = _moe(spec, moe, weights) if moe else _gated_mlp(spec, weights)

    def __call__(
        self,
        x: F32Array,
        angles: RopeAngles,
        cache: Cache,
        kernels: Kernels,
        form: MLAForm,
        observe: RoutingObserver | None,
    ) -> None:
        """Run the layer on the hidden states ``x (n, hidden)``, in place."""
        self.attend(x, angles, cache, kernels, form)
        self.feed_forward(x, kernels, observe)

    def attend(self, x: F32Array, angles: RopeAngles, cache: Cache, kernels: Kernels, form: MLAForm) -> None:
        """``x += attention(norm(x))`` in place, ``x (n, hidden)``: consecutive tokens of one sequence."""
        check_interrupt()
        attend(self._attention, x, angles, cache, self._index, kernels, form)

    def attend_each(
        self, x: F32Array, angles: RopeAngles, caches: Sequence[Cache], kernels: Kernels, form: MLAForm
    ) -> None:
        """``x += attention(norm(x))`` in place, ``x (n, hidden)``: one token of each of ``n`` sequences."""
        check_interrupt()
        attend_each(self._attention, x, angles, caches, self._index, kernels, form)

    def feed_forward(self, x: F32Array, kernels: Kernels, observe: RoutingObserver | None = None) -> None:
        """``x += mlp(norm(x))`` in place, ``x (n, hidden)``: any tokens of any sequences."""
        check_interrupt()
        if isinstance(self._mlp, MoE):
            kernels.moe(x, self._mlp, partial(observe, self._index) if observe else None)
        else:
            kernels.gated_mlp(x, self._mlp)


def _gated_mlp(spec: ModelSpec, weights: LayerWeights) -> GatedMLP:
    return GatedMLP(norm=weights.gain("ffn_norm"), mlp=weights.mlp(), eps=spec.rms_norm_eps)


def _moe(spec: ModelSpec, moe: MoESpec, weights: LayerWeights) -> MoE:
    return MoE(
        norm=weights.gain("ffn_norm"),
        router=weights.matrix("ffn_gate_inp"),
        bias=weights.bias("exp_probs_b") if moe.correction_bias else None,
        moe=moe,
        routed=weights.mlp("_exps"),
        shared=weights.mlp("_shexp") if moe.n_shared_experts else None,
        eps=spec.rms_norm_eps,
    )
