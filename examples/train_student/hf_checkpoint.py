"""The trained student in Hugging Face's layout, as unmodified transformers and sprat read it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from student import FeedForward, MoE, Student, StudentConfig
from tokenizers import Tokenizer
from torch import Tensor
from vocabulary import BOS, CHAT_TEMPLATE, EOS, write_tokenizer

__all__ = ["hf_config", "hf_tensors", "write_checkpoint"]


def write_checkpoint(student: Student, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, BF16 weights, tokenizer, chat template and generation defaults."""
    folder.mkdir(parents=True, exist_ok=True)
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    _write_json(folder / "config.json", hf_config(student.config) | {"bos_token_id": bos, "eos_token_id": eos})
    _write_json(
        folder / "generation_config.json",
        {
            "_from_model_config": True,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "do_sample": False,
            "max_new_tokens": 256,
        },
    )
    write_tokenizer(tokenizer, folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    save_file(hf_tensors(student), folder / "model.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def hf_config(config: StudentConfig) -> dict[str, object]:
    """``config.json``, with the keys that V2-Lite's has."""
    own = {name: getattr(config, name) for name in StudentConfig.__dataclass_fields__ if not name.startswith("yarn_")}
    return {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        **own,
        "num_key_value_heads": config.num_attention_heads,
        "q_lora_rank": None,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "moe_layer_freq": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "rope_scaling": {
            "type": "yarn",
            "factor": config.yarn_factor,
            "original_max_position_embeddings": config.yarn_original_length,
            "beta_fast": config.yarn_beta_fast,
            "beta_slow": config.yarn_beta_slow,
            "mscale": config.yarn_mscale,
            "mscale_all_dim": config.yarn_mscale,
        },
        "tie_word_embeddings": False,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }


def hf_tensors(student: Student) -> dict[str, Tensor]:
    """All weights in BF16 under Hugging Face's names; stacked experts become one tensor each."""
    tensors = {
        "model.embed_tokens.weight": student.embed_tokens,
        "model.norm.weight": student.norm.weight,
        "lm_head.weight": student.lm_head.weight,
    }
    for index, layer in enumerate(student.layers):
        prefix = f"model.layers.{index}."
        tensors |= {prefix + name: weight for name, weight in layer.named_parameters() if not name.startswith("mlp.")}
        mlp = _moe_tensors(layer.mlp) if isinstance(layer.mlp, MoE) else _feed_forward_tensors(layer.mlp)
        tensors |= {f"{prefix}mlp.{name}": weight for name, weight in mlp.items()}
    return {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}


def _feed_forward_tensors(block: FeedForward) -> dict[str, Tensor]:
    return {f"{name}.weight": getattr(block, name).weight for name in ("gate_proj", "up_proj", "down_proj")}


def _moe_tensors(block: MoE) -> dict[str, Tensor]:
    tensors = {"gate.weight": block.router}
    for name in ("gate_proj", "up_proj", "down_proj"):
        tensors |= {
            f"experts.{expert}.{name}.weight": weight.clone() for expert, weight in enumerate(getattr(block, name))
        }
    shared = _feed_forward_tensors(block.shared_experts)
    return tensors | {f"shared_experts.{name}": weight for name, weight in shared.items()}
