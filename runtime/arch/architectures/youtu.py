"""Youtu-LLM: DeepSeek's latent attention with dense MLPs. Its GGUF architecture is deepseek2 without experts."""

from __future__ import annotations

from sprat.runtime.arch.architecture import reads_config
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.hf_fields import latent_from_config
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["youtu_from_config"]


@reads_config("YoutuForCausalLM")
def youtu_from_config(fields: Fields) -> ModelSpec:
    """Read ``config.json``; embeddings are tied unless it says otherwise."""
    fields.must_be({"rope_interleave": [True]})
    fields.ignore("embedding_initializer_range")  # of training
    return latent_from_config(fields, "deepseek2", tied=True)
