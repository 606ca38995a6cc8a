"""Products and bytes of one token of a published model, from its dimensions and a mix of llama-quantize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.presets import preset_config
from sprat.runtime.memory.footprint import planned_footprint, planned_recipes

__all__ = ["MODELS", "TokenCost", "token_cost"]

_LLAMA_3B = {"hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 24, "num_hidden_layers": 28}
_LLAMA_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_hidden_layers": 40}
# Name -> preset, and what config.json has otherwise.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama-3.2-3B": ("r1-distill-llama-8b", _LLAMA_3B | {"tie_word_embeddings": True}),
    "Llama-3.1-8B": ("r1-distill-llama-8b", {}),
    "Llama-2-13B": (
        "r1-distill-llama-8b",
        _LLAMA_13B | {"num_key_value_heads": 40, "vocab_size": 32000, "rope_scaling": None},
    ),
    "R1-Distill-Qwen-14B": ("r1-distill-qwen-14b", {}),
    "Qwen3-0.6B": ("qwen3-0.6b", {}),
    "Qwen3-1.7B": ("qwen3-1.7b", {}),
    "Qwen3-30B-A3B": ("qwen3-30b-a3b", {}),
}


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Weights and bytes of one token.

    Attributes:
        weights: that it multiplies, without the output matrix.
        head_weights: of the output matrix, which a prompt multiplies once only.
        n_bytes: that decoding it reads.
    """

    weights: float
    head_weights: float
    n_bytes: float


def token_cost(model: str, mix: str) -> TokenCost:
    """The cost of a model of :data:`MODELS`, every tensor in the format that llama-quantize gives it."""
    preset, other = MODELS[model]
    spec = spec_from_config(preset_config(preset) | other)
    cost = planned_footprint(spec, planned_recipes(spec, mix)[0]).pass_cost
    experts = cost.n_moe_layers * cost.n_experts_per_token * cost.expert_weights
    return TokenCost(cost.dense_weights + experts, cost.head_weights, cost.bytes_per_token)
