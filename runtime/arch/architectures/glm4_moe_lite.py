"""GLM-4.7-Flash: DeepSeek-V3's attention and routing with a list of layer types. Its GGUF architecture is deepseek2.

llama.cpp drafts with its MTP layer, so files keep it.
"""

from __future__ import annotations

from dataclasses import replace

from sprat.runtime.arch.architecture import reads_config
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.hf_fields import latent_from_config, sigmoid_experts_from_config
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["glm4_moe_lite_from_config"]

_DEFAULTS = {  # of transformers' Glm4MoeLiteConfig
    "hidden_size": 2048,
    "intermediate_size": 10240,
    "kv_lora_rank": 512,
    "max_position_embeddings": 202752,
    "moe_intermediate_size": 1536,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 20,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 47,
    "q_lora_rank": 768,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-5,
    "routed_scaling_factor": 1.8,
    "topk_group": 1,
    "v_head_dim": 256,
    "vocab_size": 154880,
}


@reads_config("Glm4MoeLiteForCausalLM")
def glm4_moe_lite_from_config(fields: Fields) -> ModelSpec:
    """Read ``config.json``; the first layer is dense unless ``mlp_layer_types`` says otherwise."""
    fields.rename({"num_local_experts": "n_routed_experts"})
    fields.assume(_DEFAULTS)
    fields.must_be({"scoring_func": ["sigmoid"], "topk_method": ["noaux_tc"], "partial_rotary_factor": [1.0]})
    fields.must_be({"rope_interleave": [True]})
    n_dense_layers = fields.leading("mlp_layer_types", "dense", "sparse", default=1)
    fields.must_be({"first_k_dense_replace": [n_dense_layers]})  # configs before transformers 5 have it
    moe = sigmoid_experts_from_config(fields, n_dense_layers=n_dense_layers)
    spec = latent_from_config(fields, "deepseek2", moe=moe)
    return replace(spec, n_mtp_layers=fields.size("num_nextn_predict_layers", 0, least=0))
