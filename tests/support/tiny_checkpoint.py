"""Checkpoints of four tiny layers in Hugging Face's layout: random weights in BF16 and a trained tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np

VOCAB_SIZE = 512
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "If there are 12 apples and 5 are eaten, 7 apples are left.",
    "A device that thinks at the edge needs no cloud; it needs patience.",
] * 4
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<｜{{ message['role'] }}｜>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)

_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        **_COMMON,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_key_value_heads": 2,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "qwen2": {
        **_COMMON,
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "deepseek2": {
        **_COMMON,
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "num_key_value_heads": 4,
        "q_lora_rank": None,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "topk_method": "greedy",
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "rope_scaling": {
            "type": "yarn",
            "factor": 8,
            "original_max_position_embeddings": 64,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 0.707,
            "mscale_all_dim": 0.707,
        },
    },
}


def write_checkpoint(folder: Path, architecture: str = "deepseek2", *, seed: int = 0, **changes: Any) -> Path:
    """Write a checkpoint of ``CONFIGS[architecture]`` with ``changes`` to the new ``folder``, and return the folder."""
    config = CONFIGS[architecture] | changes
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_weights(folder / "model.safetensors", weights(config, seed))
    write_tokenizer(folder, architecture, config["vocab_size"])
    return folder


def weights(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 weights by Hugging Face name, scaled so that activations keep their magnitude."""
    rng = np.random.default_rng(seed)

    def make(shape: tuple[int, ...], name: str) -> np.ndarray:
        if name.endswith("norm.weight"):
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    return {name: make(shape, name) for name, shape in shapes(config).items()}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, by Hugging Face name."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    found = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(config["num_hidden_layers"]):
        parts = _attention(config) | _feed_forward(config, layer)
        parts |= {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    found["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (vocab, hidden)
    return found


def _attention(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if "kv_lora_rank" in config:
        rank, nope, rope, value = (
            config[key] for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        )
        return {
            "self_attn.q_proj.weight": (heads * (nope + rope), hidden),
            "self_attn.kv_a_proj_with_mqa.weight": (rank + rope, hidden),
            "self_attn.kv_a_layernorm.weight": (rank,),
            "self_attn.kv_b_proj.weight": (heads * (nope + value), rank),
            "self_attn.o_proj.weight": (hidden, heads * value),
        }
    kv_width = hidden // heads * config["num_key_value_heads"]
    found = {
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.k_proj.weight": (kv_width, hidden),
        "self_attn.v_proj.weight": (kv_width, hidden),
        "self_attn.o_proj.weight": (hidden, hidden),
    }
    if config["model_type"] == "qwen2":
        found |= {f"self_attn.{part}_proj.bias": (found[f"self_attn.{part}_proj.weight"][0],) for part in "qkv"}
    return found


def _feed_forward(config: dict[str, Any], layer: int) -> dict[str, tuple[int, ...]]:
    hidden = config["hidden_size"]
    if layer < config.get("first_k_dense_replace", config["num_hidden_layers"]):
        return _mlp("mlp", config["intermediate_size"], hidden)
    width, n_experts = config["moe_intermediate_size"], config["n_routed_experts"]
    found = {"mlp.gate.weight": (n_experts, hidden)}
    for expert in range(n_experts):
        found |= _mlp(f"mlp.experts.{expert}", width, hidden)
    return found | _mlp("mlp.shared_experts", width * config["n_shared_experts"], hidden)


def _mlp(name: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.gate_proj.weight": (width, hidden),
        f"{name}.up_proj.weight": (width, hidden),
        f"{name}.down_proj.weight": (hidden, width),
    }


def write_weights(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file in BF16: length of the header, header, data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, array in tensors.items():
        begin = len(data)
        data += _bf16(array)
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _bf16(array: np.ndarray) -> bytes:
    """Round to nearest even."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()


_PRE_TOKENIZERS = {"llama": "llama-bpe", "qwen2": "qwen2", "deepseek2": "deepseek-llm"}


def write_tokenizer(folder: Path, architecture: str, vocab_size: int) -> None:
    """Write a byte-level BPE tokenizer with the architecture's pre-tokenizer and DeepSeek's special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from sprat.runtime.tokenizer.pretokenizers import get_pre_tokenizer

    document = json.loads(Tokenizer(models.BPE()).to_str())
    row = get_pre_tokenizer(_PRE_TOKENIZERS[architecture])
    document["normalizer"] = row.normalizer and {"type": row.normalizer}
    document["pre_tokenizer"] = row.json()
    document["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, "<｜User｜>", "<｜Assistant｜>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": BOS, "eos_token": EOS, "add_bos_token": True, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False))
