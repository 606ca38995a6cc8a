"""GGUF files of published shapes with random weights, for measuring speed: same bytes, same work, no download.

Every format takes part through its own quantizer: a buffer of normal numbers is packed once and repeated. Projections
into the residual stream are small, so that hidden states stay near the tokens' embeddings and tokens choose different
experts; ``vs_llamacpp.py`` reports the entropy of the routing beside every figure.

    python benchmarks/shapes.py deepseek-v2-lite --layers 6 --quant Q4_0 v2-lite-6.gguf
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from sprat.quant.formats import get_format
from sprat.quant.formats.block import U8Array
from sprat.runtime.gguf_metadata import metadata_from_spec
from sprat.runtime.hf_config import spec_from_config
from sprat.runtime.spec import ModelSpec
from sprat.runtime.tensors import expected_tensors

__all__ = ["SHAPES", "write_shape"]

# config.json of the published checkpoints, as far as it decides the shape.
SHAPES: dict[str, dict[str, Any]] = {
    "deepseek-v2-lite": {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "first_k_dense_replace": 1,
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "kv_lora_rank": 512,
        "max_position_embeddings": 163840,
        "moe_intermediate_size": 1408,
        "moe_layer_freq": 1,
        "n_group": 1,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "norm_topk_prob": False,
        "num_attention_heads": 16,
        "num_experts_per_tok": 6,
        "num_hidden_layers": 27,
        "num_key_value_heads": 16,
        "q_lora_rank": None,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000,
        "routed_scaling_factor": 1.0,
        "scoring_func": "softmax",
        "tie_word_embeddings": False,
        "topk_group": 1,
        "topk_method": "greedy",
        "v_head_dim": 128,
        "vocab_size": 102400,
    },
    "r1-distill-qwen-1.5b": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "max_position_embeddings": 131072,
        "num_attention_heads": 12,
        "num_hidden_layers": 28,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
        "vocab_size": 151936,
    },
    "r1-distill-llama-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
        "vocab_size": 128256,
    },
}
_POOL_BLOCKS = 65_521  # a prime: the same blocks meet a row at another place each time they come around
_INTO_RESIDUAL = ("attn_output", "ffn_down")
_INTO_RESIDUAL_SCALE = 0.02


def write_shape(path: Path, shape: str, quant: str = "Q4_0", layers: int | None = None) -> ModelSpec:
    """Write a file of ``shape`` with all matrices in ``quant``, where its blocks divide their rows, else its fallback.

    Args:
        path: the file.
        shape: a name of :data:`SHAPES`.
        quant: a block format.
        layers: layers to write; ``None`` for all.
    """
    config = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    spec = spec_from_config(config)
    writer = gguf.GGUFWriter(path, spec.architecture.value, use_temp_file=False)
    writer.add_string("tokenizer.ggml.model", "none")
    for key, value in metadata_from_spec(spec).items():
        _add(writer, key, value)
    tensors = [(name, size, _format_for(name, size, quant)) for name, size in expected_tensors(spec).items()]
    for name, size, format_name in tensors:
        stored = get_format(format_name)
        packed_shape = (*size[:-1], stored.row_bytes(size[-1]))
        kind = gguf.GGMLQuantizationType(stored.ggml_type)
        writer.add_tensor_info(name, packed_shape, np.dtype(np.uint8), int(np.prod(packed_shape)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, size, format_name in tensors:
        writer.write_tensor_data(_random_tensor(name, size, format_name))
    writer.close()
    return spec


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, list(value))


def _format_for(name: str, size: tuple[int, ...], quant: str) -> str:
    if len(size) == 1 or "ffn_gate_inp" in name:  # norms, biases and routers stay in float32
        return "F32"
    stored = get_format(quant)
    return stored.name if stored.divides(size[-1]) else stored.fallback


def _random_tensor(name: str, size: tuple[int, ...], format_name: str) -> U8Array:
    stored = get_format(format_name)
    shape = (*size[:-1], stored.row_bytes(size[-1]))
    if len(size) == 1:
        value = 1.0 if "norm" in name else 0.0
        return stored.quantize(np.full(size, value, np.float32)).reshape(shape)
    scale = 1.0 if "token_embd" in name else size[-1] ** -0.5
    if any(part in name for part in _INTO_RESIDUAL):
        scale *= _INTO_RESIDUAL_SCALE
    if format_name == "F32":
        numbers = np.random.default_rng(len(name)).normal(size=size) * scale
        return stored.quantize(numbers.astype(np.float32))
    return np.resize(_pool(format_name, scale), int(np.prod(shape))).reshape(shape)


@functools.cache
def _pool(format_name: str, scale: float) -> U8Array:
    """Blocks of normal numbers, packed once."""
    stored = get_format(format_name)
    n_blocks = _POOL_BLOCKS // max(1, stored.block_size // 32)
    numbers = np.random.default_rng(7).normal(size=(n_blocks, stored.block_size)) * scale
    return stored.quantize(numbers.astype(np.float32)).ravel()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("path", type=Path)
    parser.add_argument("--quant", default="Q4_0")
    parser.add_argument("--layers", type=int)
    arguments = parser.parse_args()
    write_shape(arguments.path, arguments.shape, arguments.quant, arguments.layers)
    print(f"{arguments.path}: {arguments.path.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    _main()
