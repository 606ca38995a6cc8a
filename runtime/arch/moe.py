"""``MoESpec``: the dimensions and the routing rule of MoE sublayers."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sprat.runtime.arch.attention.spec import NamedShape
from sprat.runtime.arch.fields import Fields
from sprat.runtime.weights import WeightSource

__all__ = ["GroupScore", "MoESpec", "Scoring", "mlp_tensors"]

_MAX_EXPERTS = 4096  # ten times the largest published one; bounds loops over an untrusted file


class Scoring(enum.StrEnum):
    """Function from router logits to scores."""

    SOFTMAX = "softmax"  # DeepSeek-V2
    SIGMOID = "sigmoid"  # DeepSeek-V3, R1


class GroupScore(enum.StrEnum):
    """Score of a group of experts when routing is limited to some groups."""

    MAX = "max"  # V2: group_limited_greedy
    TOP2_SUM = "top2_sum"  # V3: noaux_tc


_GATING = {1: Scoring.SOFTMAX, 2: Scoring.SIGMOID}  # expert_gating_func
_GROUP_SCORES = {Scoring.SOFTMAX: GroupScore.MAX, Scoring.SIGMOID: GroupScore.TOP2_SUM}


@dataclass(frozen=True, slots=True, kw_only=True)
class MoESpec:
    """DeepSeekMoE (arXiv 2401.06066)."""

    n_routed_experts: int
    n_shared_experts: int  # computed as one MLP of this many times the expert width; 0 for none
    n_experts_per_token: int
    expert_width: int  # moe_intermediate_size
    n_dense_layers: int  # first_k_dense_replace: leading layers with a dense MLP
    scoring: Scoring
    normalize: bool  # divide the selected scores by their sum
    scaling: float  # routed_scaling_factor
    n_groups: int = 1
    n_groups_per_token: int = 1
    group_score: GroupScore = GroupScore.MAX
    correction_bias: bool = False  # added to the scores for the selection only

    def tensors(self, hidden_size: int) -> Iterator[NamedShape]:
        """Router, routed experts, shared experts."""
        yield "ffn_gate_inp.weight", (self.n_routed_experts, hidden_size)
        if self.correction_bias:
            yield "exp_probs_b.bias", (self.n_routed_experts,)
        yield from mlp_tensors("_exps", self.expert_width, hidden_size, self.n_routed_experts)
        if self.n_shared_experts:
            yield from mlp_tensors("_shexp", self.n_shared_experts * self.expert_width, hidden_size)

    def contradictions(self, n_layers: int) -> list[str]:
        """Dimensions that do not fit together in a model of ``n_layers``, as clauses of one message."""
        if self.n_groups < 1 or self.n_routed_experts < 1:
            return [f"{self.n_routed_experts} experts in {self.n_groups} groups, expected at least one of each"]
        per_group = self.n_routed_experts // self.n_groups
        wrong = {
            f"{self.n_routed_experts} experts, expected at most {_MAX_EXPERTS}": self.n_routed_experts > _MAX_EXPERTS,
            f"{self.n_dense_layers} dense layers of {n_layers}": self.n_dense_layers > n_layers,
            f"{self.n_routed_experts} experts in {self.n_groups} groups": self.n_routed_experts % self.n_groups > 0,
            f"{self.n_groups_per_token} chosen groups of {self.n_groups}": self.n_groups_per_token > self.n_groups,
            f"{self.n_experts_per_token} chosen experts in {self.n_groups_per_token} groups of {per_group}": (
                self.n_experts_per_token > self.n_groups_per_token * per_group
            ),
            f"groups of {per_group} scored by their best two": self.group_score is GroupScore.TOP2_SUM
            and per_group < 2,
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]

    def gguf_keys(self) -> dict[str, Any]:
        """llama.cpp's ``expert_*`` keys, without the architecture's prefix."""
        gating = {scoring: number for number, scoring in _GATING.items()}
        groups = {"expert_group_count": self.n_groups, "expert_group_used_count": self.n_groups_per_token}
        return {
            "leading_dense_block_count": self.n_dense_layers,
            "expert_count": self.n_routed_experts,
            "expert_used_count": self.n_experts_per_token,
            "expert_shared_count": self.n_shared_experts,
            "expert_feed_forward_length": self.expert_width,
            "expert_weights_scale": self.scaling,
            "expert_weights_norm": self.normalize,
            "expert_gating_func": gating[self.scoring],
            **(groups if self.n_groups > 1 else {}),
        }

    @classmethod
    def from_gguf(
        cls,
        fields: Fields,
        weights: WeightSource,
        *,
        normalize: bool = False,
        scoring: Scoring = Scoring.SOFTMAX,
    ) -> MoESpec:
        """Read the keys of :meth:`gguf_keys`; the correction bias is a tensor.

        Args:
            fields: the keys.
            weights: the tensors.
            normalize: of a file without ``expert_weights_norm``.
            scoring: of a file without ``expert_gating_func``.
        """
        n_dense_layers = fields.size("leading_dense_block_count", 0, least=0)
        if "expert_gating_func" in fields:
            scoring = fields.choice("expert_gating_func", _GATING)
        return cls(
            n_routed_experts=fields.size("expert_count"),
            n_shared_experts=fields.size("expert_shared_count", 0, least=0),
            n_experts_per_token=fields.size("expert_used_count"),
            expert_width=fields.size("expert_feed_forward_length"),
            n_dense_layers=n_dense_layers,
            scoring=scoring,
            normalize=fields.flag("expert_weights_norm", normalize),
            scaling=fields.float32("expert_weights_scale", 1.0),
            n_groups=fields.size("expert_group_count", 1),
            n_groups_per_token=fields.size("expert_group_used_count", 1),
            group_score=_GROUP_SCORES[scoring],
            correction_bias=f"blk.{n_dense_layers}.exp_probs_b.bias" in weights,
        )


def mlp_tensors(suffix: str, width: int, hidden_size: int, *stacked: int) -> Iterator[NamedShape]:
    """Matrices of a gated MLP; ``stacked`` is a leading axis, the number of experts."""
    yield f"ffn_gate{suffix}.weight", (*stacked, width, hidden_size)
    yield f"ffn_up{suffix}.weight", (*stacked, width, hidden_size)
    yield f"ffn_down{suffix}.weight", (*stacked, hidden_size, width)
