"""DeepSeek-V2 (arXiv 2405.04434) and V3/R1 (arXiv 2412.19437): latent attention and MoE.

llama.cpp has one name for V2, V2-Lite, V3 and R1. One difference: for DeepSeek-V2 (236B) llama.cpp scores a group of
experts by its best two, DeepSeek by its best one. The keys are the same; sprat follows DeepSeek.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sprat.runtime.arch.architecture import Architecture, ConfigReader
from sprat.runtime.arch.attention import LatentAttentionSpec
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.gguf_fields import common_from_gguf, rope_from_gguf
from sprat.runtime.arch.hf_fields import common_from_config, rope_from_config
from sprat.runtime.arch.moe import GroupScore, MoESpec, Scoring
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.weights import WeightSource

__all__ = ["DeepSeek2"]

_LATENT_EPS = 1e-6  # of the latent norms, whatever rms_norm_eps is: DeepSeek's code and transformers build them so
_V2_LITE_LAYERS = {26, 27}  # by which llama.cpp recognizes a model without q_lora


class DeepSeek2(Architecture, name="deepseek2"):
    """V2 routes by softmax, V3 by sigmoid with a correction bias."""

    @property
    def config_readers(self) -> Mapping[str, ConfigReader]:
        """``DeepseekV2ForCausalLM`` and ``DeepseekV3ForCausalLM``."""
        return {"DeepseekV2ForCausalLM": self._v2, "DeepseekV3ForCausalLM": self._v3}

    def spec_from_gguf(self, fields: Fields, weights: WeightSource) -> ModelSpec:
        """Read the keys; MTP layers come last and are not part of the spec."""
        attention = LatentAttentionSpec.from_gguf(fields, bias=False)
        return ModelSpec(
            architecture=self.name,
            n_layers=fields.size("block_count") - fields.size("nextn_predict_layers", 0, least=0),
            attention=attention,
            rope=rope_from_gguf(fields, attention.qk_rope_head_dim, weights, interleaved=True),
            moe=MoESpec.from_gguf(fields, weights),
            **common_from_gguf(fields, weights),
        )

    def why_not_llamacpp(self, spec: ModelSpec) -> list[str]:
        """Variants that its deepseek2 does not implement."""
        attention, moe = spec.attention, spec.moe
        assert isinstance(attention, LatentAttentionSpec), "a deepseek2 spec has latent attention"
        assert moe is not None, "a deepseek2 spec has experts"
        with_q_lora = attention.q_lora_rank is not None
        wrong = {
            f"it has q_lora and {spec.n_layers} layers, by which llama.cpp recognizes V2-Lite": (
                with_q_lora and spec.n_layers in _V2_LITE_LAYERS
            ),
            "it has no shared experts": moe.n_shared_experts == 0,
            "each group has one expert": moe.n_groups == moe.n_routed_experts,
        }
        return [problem for problem, is_wrong in wrong.items() if is_wrong]

    def differs_in_llamacpp(self, spec: ModelSpec) -> list[str]:
        """Group-limited routing of V2."""
        if spec.moe is None or spec.moe.n_groups == 1 or spec.moe.group_score is not GroupScore.MAX:
            return []
        return [
            "llama.cpp and Ollama choose other experts: they score a group of experts by its best two, as DeepSeek-V3 "
            "does, and DeepSeek-V2 (236B) by its best one; their logits differ"
        ]

    def _v2(self, fields: Fields) -> ModelSpec:
        # norm_topk_prob: DeepSeek's code normalizes instead of scaling, transformers' ignores it; no checkpoint sets it
        fields.must_be({"scoring_func": ["softmax"], "norm_topk_prob": [False]})
        limited = fields.choice("topk_method", {"greedy": False, "group_limited_greedy": True}, "greedy")
        n_groups, n_chosen = fields.size("n_group", 1), fields.size("topk_group", 1)
        moe = _moe(
            fields,
            scoring=Scoring.SOFTMAX,
            normalize=False,
            scaling=fields.number("routed_scaling_factor", 1.0),
            n_groups=n_groups if limited else 1,
            n_groups_per_token=n_chosen if limited else 1,
            group_score=GroupScore.MAX,
        )
        return self._spec(fields, moe)

    def _v3(self, fields: Fields) -> ModelSpec:
        fields.must_be({"scoring_func": ["sigmoid"], "topk_method": ["noaux_tc"], "rope_interleave": [True]})
        moe = _moe(
            fields,
            scoring=Scoring.SIGMOID,
            normalize=fields.flag("norm_topk_prob", True),
            scaling=fields.number("routed_scaling_factor", 2.5),
            n_groups=fields.size("n_group", 8),
            n_groups_per_token=fields.size("topk_group", 4),
            group_score=GroupScore.TOP2_SUM,
            correction_bias=True,
        )
        return self._spec(fields, moe)

    def _spec(self, fields: Fields, moe: MoESpec) -> ModelSpec:
        eps = fields.number("rms_norm_eps", 1e-6)
        attention = LatentAttentionSpec(
            n_heads=fields.size("num_attention_heads"),
            q_lora_rank=fields.size("q_lora_rank") if "q_lora_rank" in fields else None,
            kv_lora_rank=fields.size("kv_lora_rank"),
            qk_nope_head_dim=fields.size("qk_nope_head_dim"),
            qk_rope_head_dim=fields.size("qk_rope_head_dim"),
            v_head_dim=fields.size("v_head_dim"),
            norm_eps=None if eps == _LATENT_EPS else _LATENT_EPS,
        )
        fields.must_be(
            {
                "num_key_value_heads": [attention.n_heads],
                "head_dim": [attention.qk_rope_head_dim],  # transformers 5 writes these two derived fields
                "qk_head_dim": [attention.qk_head_dim],
            }
        )
        return ModelSpec(
            architecture=self.name,
            attention=attention,
            rms_norm_eps=eps,
            rope=rope_from_config(fields, attention.qk_rope_head_dim, interleaved=True),
            moe=moe,
            **common_from_config(fields),
        )


def _moe(fields: Fields, *, n_groups: int, n_groups_per_token: int, **rules: Any) -> MoESpec:
    fields.must_be({"moe_layer_freq": [1]})
    is_limited = n_groups_per_token != n_groups  # selecting all groups is no limit
    return MoESpec(
        n_routed_experts=fields.size("n_routed_experts"),
        n_shared_experts=fields.size("n_shared_experts", least=0),
        n_experts_per_token=fields.size("num_experts_per_tok"),
        expert_width=fields.size("moe_intermediate_size"),
        n_dense_layers=fields.size("first_k_dense_replace", least=0),
        n_groups=n_groups if is_limited else 1,
        n_groups_per_token=n_groups_per_token if is_limited else 1,
        **rules,
    )
