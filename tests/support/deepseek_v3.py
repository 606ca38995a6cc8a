"""A tiny DeepSeek-V3: its differences from the tiny V2, and its published FP8 layout."""

from typing import Any

import numpy as np
from safetensors_files import bf16
from tiny_checkpoint import CONFIGS, shapes

_Q_LORA = {
    "self_attn.q_a_proj.weight": (24, 64),
    "self_attn.q_a_layernorm.weight": (24,),
    "self_attn.q_b_proj.weight": (4 * 48, 24),
}
_CHANGES = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "q_lora_rank": 24,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "n_group": 4,
    "topk_group": 2,
    "num_nextn_predict_layers": 1,
}


def deepseek_v3() -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Config, and the shape of every tensor that the model runs with, by Hugging Face name."""
    config = CONFIGS["deepseek2"] | _CHANGES
    found = dict(shapes(CONFIGS["deepseek2"]))
    for layer in range(config["num_hidden_layers"]):
        del found[f"model.layers.{layer}.self_attn.q_proj.weight"]
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in _Q_LORA.items()}
        if layer >= config["first_k_dense_replace"]:
            found[f"model.layers.{layer}.mlp.gate.e_score_correction_bias"] = (config["n_routed_experts"],)
    return config, found


def fp8_checkpoint() -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, str]]:
    """Config, tensors and types as published: projections in FP8 with scales, the rest in BF16, one layer of MTP."""
    config, names = deepseek_v3()
    rng = np.random.default_rng(5)
    stored: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    names |= {"model.layers.4.eh_proj.weight": (64, 128), "model.layers.4.enorm.weight": (64,)}
    for name, shape in names.items():
        if "_proj" in name:
            stored[name], kinds[name] = rng.integers(0, 0x60, shape, np.uint8), "F8_E4M3"
            scales = f"{name}_scale_inv"
            blocks = tuple(-(-size // 128) for size in shape)
            stored[scales], kinds[scales] = rng.uniform(0.01, 1, blocks).astype(np.float32), "F32"
        else:
            stored[name], kinds[name] = bf16(rng.standard_normal(shape)), "BF16"
    return config, stored, kinds
