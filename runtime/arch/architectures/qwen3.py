"""Qwen3 (arXiv 2505.09388), as DeepSeek-R1-0528-Qwen3-8B: Qwen2 with norms of query and key heads, and no biases."""

from __future__ import annotations

from collections.abc import Mapping

from sprat.runtime.arch.architecture import Architecture, ConfigReader
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.gguf_fields import grouped_from_gguf
from sprat.runtime.arch.hf_fields import grouped_from_config, no_sliding_windows
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.weights import WeightSource

__all__ = ["Qwen3"]

_DEFAULTS = {  # of transformers' Qwen3Config
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "vocab_size": 151936,
}


class Qwen3(Architecture, name="qwen3"):
    """Dense Qwen3; sliding windows are not implemented."""

    genai_type = "qwen3"

    @property
    def config_readers(self) -> Mapping[str, ConfigReader]:
        """``Qwen3ForCausalLM``."""
        return {"Qwen3ForCausalLM": self._from_config}

    def spec_from_gguf(self, fields: Fields, weights: WeightSource) -> ModelSpec:
        """Read a dense model's keys."""
        return grouped_from_gguf(fields, self.name, weights, interleaved=False)

    def _from_config(self, fields: Fields) -> ModelSpec:
        fields.assume(_DEFAULTS)
        spec = grouped_from_config(fields, self.name, interleaved=False, qk_norm=True)
        no_sliding_windows(fields, spec)
        return spec
