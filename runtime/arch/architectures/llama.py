"""Llama (arXiv 2407.21783), as DeepSeek-R1-Distill-Llama: grouped-query attention and a gated MLP."""

from __future__ import annotations

from collections.abc import Mapping

from sprat.runtime.arch.architecture import Architecture, ConfigReader
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.gguf_fields import grouped_from_gguf
from sprat.runtime.arch.hf_fields import grouped_from_config
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.weights import WeightSource

__all__ = ["Llama"]

_DEFAULTS = {  # of transformers' LlamaConfig
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rms_norm_eps": 1e-6,
    "vocab_size": 32000,
}


class Llama(Architecture, name="llama"):
    """RoPE rotates pairs (2i, 2i+1) in GGUF, for which the export reorders the rows of q and k."""

    genai_type = "llama"
    has_rope_factors = True

    @property
    def config_readers(self) -> Mapping[str, ConfigReader]:
        """``LlamaForCausalLM``."""
        return {"LlamaForCausalLM": self._from_config}

    def spec_from_gguf(self, fields: Fields, weights: WeightSource) -> ModelSpec:
        """Read a dense model's keys."""
        return grouped_from_gguf(fields, self.name, weights, interleaved=True)

    def _from_config(self, fields: Fields) -> ModelSpec:
        fields.assume(_DEFAULTS)
        return grouped_from_config(fields, self.name, interleaved=True)
