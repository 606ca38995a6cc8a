"""Qwen3-MoE (arXiv 2505.09388), as Qwen3-30B-A3B: Qwen3's attention, then experts in every layer and none shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sprat.runtime.arch.architecture import Architecture, ConfigReader
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.gguf_fields import grouped_from_gguf
from sprat.runtime.arch.hf_fields import grouped_from_config
from sprat.runtime.arch.moe import MoESpec, Scoring
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.weights import WeightSource

__all__ = ["Qwen3Moe"]


class Qwen3Moe(Architecture, name="qwen3moe"):
    """The router's softmax is over all experts, then the chosen ones are normalized."""

    @property
    def config_readers(self) -> Mapping[str, ConfigReader]:
        """``Qwen3MoeForCausalLM``."""
        return {"Qwen3MoeForCausalLM": self._from_config}

    def spec_from_gguf(self, fields: Fields, weights: WeightSource) -> ModelSpec:
        """Read the keys; llama.cpp normalizes whatever they say, and its converter leaves the key out."""
        moe = MoESpec.from_gguf(fields, weights, normalize=True)
        return grouped_from_gguf(fields, self.name, weights, interleaved=False, moe=moe)

    def why_not_llamacpp(self, spec: ModelSpec) -> list[str]:
        """Reasons why llama.cpp's qwen3moe cannot run this spec."""
        assert spec.moe is not None, "a qwen3moe spec has experts"
        return [] if spec.moe.normalize else ["the weights of the chosen experts are not normalized (norm_topk_prob)"]

    def _from_config(self, fields: Fields) -> ModelSpec:
        fields.must_be({"use_sliding_window": [False], "decoder_sparse_step": [1], "mlp_only_layers": [[]]})
        fields.all_must_be("layer_types", "full_attention")
        fields.ignore("sliding_window", "max_window_layers")  # of windows that are not used
        moe = MoESpec(
            n_routed_experts=fields.size("num_local_experts" if "num_local_experts" in fields else "num_experts"),
            n_shared_experts=0,
            n_experts_per_token=fields.size("num_experts_per_tok"),
            expert_width=fields.size("moe_intermediate_size"),
            n_dense_layers=0,
            scoring=Scoring.SOFTMAX,
            normalize=fields.flag("norm_topk_prob", False),
            scaling=1.0,
        )
        return replace(grouped_from_config(fields, self.name, interleaved=False, qk_norm=True), moe=moe)
