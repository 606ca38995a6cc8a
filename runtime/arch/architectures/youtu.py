"""Youtu-LLM: DeepSeek's latent attention with dense MLPs. Its GGUF architecture is deepseek2 without experts."""

from __future__ import annotations

from sprat.runtime.arch.architecture import reads_config
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.hf_fields import latent_from_config
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["youtu_from_config"]

_DEFAULTS = {  # of transformers' YoutuConfig
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "kv_lora_rank": 512,
    "max_position_embeddings": 131072,
    "num_attention_heads": 16,
    "num_hidden_layers": 32,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "v_head_dim": 128,
    "vocab_size": 128256,
}


@reads_config("YoutuForCausalLM")
def youtu_from_config(fields: Fields) -> ModelSpec:
    """Read ``config.json``; embeddings are tied unless it says otherwise."""
    fields.assume(_DEFAULTS)
    fields.must_be({"rope_interleave": [True]})
    fields.ignore("embedding_initializer_range")  # of training
    return latent_from_config(fields, "deepseek2")
