"""Qwen2 (arXiv 2407.10671), as DeepSeek-R1-Distill-Qwen: Llama with biases of queries, keys and values.

RoPE rotates pairs (i, i + dim/2) instead of (2i, 2i + 1).
"""

from __future__ import annotations

from collections.abc import Mapping

from sprat.runtime.arch.architecture import Architecture, ConfigReader
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.gguf_fields import grouped_from_gguf
from sprat.runtime.arch.hf_fields import grouped_from_config, no_sliding_windows
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.weights import WeightSource

__all__ = ["Qwen2"]

_DEFAULTS = {  # of transformers' Qwen2Config
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


class Qwen2(Architecture, name="qwen2"):
    """Dense Qwen2 models; sliding windows are not implemented."""

    genai_type = "qwen2"

    @property
    def config_readers(self) -> Mapping[str, ConfigReader]:
        """``Qwen2ForCausalLM``."""
        return {"Qwen2ForCausalLM": self._from_config}

    def spec_from_gguf(self, fields: Fields, weights: WeightSource) -> ModelSpec:
        """Read a dense model's keys."""
        return grouped_from_gguf(fields, self.name, weights, interleaved=False)

    def why_not_llamacpp(self, spec: ModelSpec) -> list[str]:
        """llama.cpp computes the head width as ``hidden_size / n_heads``."""
        if spec.attention.q_width != spec.hidden_size:
            return ["its heads are not hidden_size / n_heads wide"]
        return []

    def _from_config(self, fields: Fields) -> ModelSpec:
        fields.assume(_DEFAULTS)
        fields.must_be({"use_mrope": [False]})
        spec = grouped_from_config(fields, self.name, interleaved=False, bias=True)
        no_sliding_windows(fields, spec)
        return spec
