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
from sprat.runtime.arch.hf_fields import experts_from_config, latent_from_config, sigmoid_experts_from_config
from sprat.runtime.arch.moe import GroupScore, MoESpec, Scoring
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.weights import WeightSource

__all__ = ["DeepSeek2"]

_V2_LITE_LAYERS = {26, 27}  # by which llama.cpp recognizes a model without q_lora
_V2_DEFAULTS = {  # of transformers' DeepseekV2Config
    "first_k_dense_replace": 0,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "kv_lora_rank": 512,
    "max_position_embeddings": 2048,
    "moe_intermediate_size": 1407,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-6,
    "routed_scaling_factor": 1.0,
    "topk_method": "greedy",
    "v_head_dim": 128,
    "vocab_size": 102400,
}
_V3_DEFAULTS = {  # of transformers' DeepseekV3Config
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 4096,
    "moe_intermediate_size": 2048,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-6,
    "routed_scaling_factor": 2.5,
    "topk_group": 4,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
_MAX_EPS = 1e-5  # of published models: up to there one epsilon for all norms gives the same logits, to 1e-4
_GLM_FLASH = ({47, 48}, 154880)  # layers with or without MTP, vocabulary, by which it recognizes GLM-4.7-Flash
_KANANA_2 = (48, 128256)  # layers and vocabulary, by which it does so too


class DeepSeek2(Architecture, name="deepseek2"):
    """V2 routes by softmax, V3 by sigmoid with a correction bias."""

    @property
    def config_readers(self) -> Mapping[str, ConfigReader]:
        """``DeepseekV2ForCausalLM`` and ``DeepseekV3ForCausalLM``."""
        return {"DeepseekV2ForCausalLM": self._v2, "DeepseekV3ForCausalLM": self._v3}

    def spec_from_gguf(self, fields: Fields, weights: WeightSource) -> ModelSpec:
        """Read the keys; MTP layers come last."""
        n_mtp_layers = fields.size("nextn_predict_layers", 0, least=0)
        attention = LatentAttentionSpec.from_gguf(fields, bias=False)
        return ModelSpec(
            architecture=self.name,
            n_layers=fields.size("block_count") - n_mtp_layers,
            n_mtp_layers=n_mtp_layers,
            attention=attention,
            rope=rope_from_gguf(fields, attention.qk_rope_head_dim, weights, interleaved=True),
            moe=_experts_from_gguf(fields, weights),
            **common_from_gguf(fields, weights),
        )

    def gguf_keys(self, spec: ModelSpec) -> dict[str, Any]:
        """Keys of experts, which llama.cpp requires of a dense model too."""
        if spec.moe is not None:
            return {}
        return {
            "leading_dense_block_count": spec.n_layers,
            "expert_shared_count": 0,
            "expert_feed_forward_length": spec.intermediate_size,
        }

    def why_not_llamacpp(self, spec: ModelSpec) -> list[str]:
        """Variants that its deepseek2 does not implement."""
        attention, moe = spec.attention, spec.moe
        assert isinstance(attention, LatentAttentionSpec), "a deepseek2 spec has latent attention"
        is_lite = spec.n_layers in _V2_LITE_LAYERS or (spec.n_layers, spec.vocab_size) == _KANANA_2
        wrong = {
            f"it has q_lora and {spec.n_layers} layers, by which llama.cpp recognizes V2-Lite, which has none": (
                attention.q_lora_rank is not None and is_lite
            ),
            "it has no shared experts": moe is not None and moe.n_shared_experts == 0,
            "each group has one expert": moe is not None and moe.n_groups == moe.n_routed_experts,
        }
        return [problem for problem, is_wrong in wrong.items() if is_wrong]

    def differs_in_llamacpp(self, spec: ModelSpec) -> list[str]:
        """Group-limited routing of V2, and epsilons that are far apart."""
        attention, moe = spec.attention, spec.moe
        assert isinstance(attention, LatentAttentionSpec), "a deepseek2 spec has latent attention"
        differences = []
        if moe is not None and moe.n_groups > 1 and moe.group_score is GroupScore.MAX:
            differences.append(
                "llama.cpp and Ollama choose other experts: they score a group of experts by its best two, as "
                "DeepSeek-V3 does, and DeepSeek-V2 (236B) by its best one; their logits differ"
            )
        if attention.norm_eps is not None and spec.rms_norm_eps > _MAX_EPS:
            differences.append(
                f"llama.cpp and Ollama have one epsilon for all norms, and this model {spec.rms_norm_eps:g}, but "
                f"{attention.norm_eps:g} for those of latents; their logits differ"
            )
        return differences

    def _v2(self, fields: Fields) -> ModelSpec:
        fields.rename({"num_experts": "n_routed_experts"})
        fields.assume(_V2_DEFAULTS)
        # norm_topk_prob: DeepSeek's code normalizes instead of scaling, transformers' ignores it; no checkpoint sets it
        fields.must_be({"scoring_func": ["softmax"], "norm_topk_prob": [False]})
        limited = fields.choice("topk_method", {"greedy": False, "group_limited_greedy": True})
        n_groups, n_chosen = fields.size("n_group", 1), fields.size("topk_group", 1)
        moe = experts_from_config(
            fields,
            n_dense_layers=fields.size("first_k_dense_replace", least=0),
            scoring=Scoring.SOFTMAX,
            normalize=False,
            scaling=fields.number("routed_scaling_factor"),
            n_groups=n_groups if limited else 1,
            n_groups_per_token=n_chosen if limited else 1,
            group_score=GroupScore.MAX,
        )
        return latent_from_config(fields, self.name, moe=moe)

    def _v3(self, fields: Fields) -> ModelSpec:
        fields.rename({"num_local_experts": "n_routed_experts"})
        fields.assume(_V3_DEFAULTS)
        fields.must_be({"scoring_func": ["sigmoid"], "topk_method": ["noaux_tc"], "rope_interleave": [True]})
        n_dense_layers = fields.size("first_k_dense_replace", least=0)
        moe = sigmoid_experts_from_config(fields, n_dense_layers=n_dense_layers)
        return latent_from_config(fields, self.name, moe=moe)


def _experts_from_gguf(fields: Fields, weights: WeightSource) -> MoESpec | None:
    """``None`` for a dense model (Youtu), whose keys of experts say nothing."""
    n_dense_layers, n_layers = (fields.size(name, 0, least=0) for name in ("leading_dense_block_count", "block_count"))
    if n_dense_layers < n_layers:
        # as in llama.cpp: files of GLM-4.7-Flash by its first converter lack the key, as do those of V2
        layers, vocabulary = _GLM_FLASH
        is_glm = n_layers in layers and weights.weight("token_embd.weight").shape[0] == vocabulary
        return MoESpec.from_gguf(fields, weights, scoring=Scoring.SIGMOID if is_glm else Scoring.SOFTMAX)
    fields.ignore("expert_count", "expert_used_count", "expert_shared_count", "expert_feed_forward_length")
    fields.ignore("expert_weights_scale", "expert_weights_norm", "expert_gating_func")
    fields.ignore("expert_group_count", "expert_group_used_count")
    return None
