"""Qwen3-MoE (arXiv 2505.09388), as Qwen3-30B-A3B: Qwen3's attention, then experts in every layer and none shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sprat.runtime.arch.architecture import Architecture, ConfigReader
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.gguf_fields import grouped_from_gguf
from sprat.runtime.arch.hf_fields import grouped_from_config, no_sliding_windows
from sprat.runtime.arch.moe import MoESpec, Scoring
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.weights import WeightSource

__all__ = ["Qwen3Moe"]

_DEFAULTS = {  # of transformers' Qwen3MoeConfig
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 32768,
    "moe_intermediate_size": 768,
    "norm_topk_prob": False,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 24,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "vocab_size": 151936,
}


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
        fields.rename({"num_local_experts": "num_experts"})
        fields.assume(_DEFAULTS)
        fields.must_be({"decoder_sparse_step": [1], "mlp_only_layers": [[]]})
        moe = MoESpec(
            n_routed_experts=fields.size("num_experts"),
            n_shared_experts=0,
            n_experts_per_token=fields.size("num_experts_per_tok"),
            expert_width=fields.size("moe_intermediate_size"),
            n_dense_layers=0,
            scoring=Scoring.SOFTMAX,
            normalize=fields.flag("norm_topk_prob"),
            scaling=1.0,
        )
        spec = grouped_from_config(fields, self.name, interleaved=False, qk_norm=True)
        fields.ignore("max_window_layers")  # all layers have the window
        no_sliding_windows(fields, spec)
        return replace(spec, moe=moe)
