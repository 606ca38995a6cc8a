"""Writes a Llama GGUF as a Hugging Face folder in float16, for onnxruntime-genai's model builder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from sprat.export.source.tensor_map import tensor_map
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.open_model import GGUFModel
from sprat.runtime.tokenizer.hf_json import build
from sprat.runtime.tokenizer.vocabulary import Vocabulary

__all__ = ["write_hf_folder"]


def write_hf_folder(gguf: Path, folder: Path) -> None:
    """Write config, weights and tokenizer of ``gguf`` to ``folder``."""
    model = GGUFModel.open(gguf)
    folder.mkdir(parents=True, exist_ok=True)
    origins = tensor_map(model.spec)
    weights = {origin.sources[0]: _as_published(model.file, name, model.spec) for name, origin in origins.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    vocabulary = model.tokenizer().vocabulary
    template = model.file.metadata.get("tokenizer.chat_template")
    texts = {
        "config.json": _config(model.spec, vocabulary),
        "tokenizer.json": build(vocabulary),
        "tokenizer_config.json": {**_tokenizer_config(vocabulary), "chat_template": template},
        "generation_config.json": {"bos_token_id": vocabulary.bos_id, "eos_token_id": sorted(vocabulary.eog_ids)},
    }
    for name, value in texts.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")


def _as_published(file: GGUFFile, name: str, spec: ModelSpec) -> npt.NDArray[np.float16]:
    """A weight in float16; rows of q and k in Hugging Face's order (two halves of a head, not interleaved pairs)."""
    weight = file.weight(name).dequantize()
    for kind, n_heads in ((".attn_q.", spec.attention.n_heads), (".attn_k.", spec.attention.n_kv_heads)):
        if kind in name:
            weight = weight.reshape(n_heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
    return np.ascontiguousarray(weight.astype(np.float16))


def _config(spec: ModelSpec, vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.n_layers,
        "num_attention_heads": spec.attention.n_heads,
        "num_key_value_heads": spec.attention.n_kv_heads,
        "head_dim": spec.attention.head_dim,
        "intermediate_size": spec.intermediate_size,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope_theta": spec.rope.theta,
        "max_position_embeddings": spec.max_context,
        "tie_word_embeddings": spec.tied_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "torch_dtype": "float16",
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
    }


def _tokenizer_config(vocabulary: Vocabulary) -> dict[str, Any]:
    special = {"bos_token": vocabulary.bos_id, "eos_token": vocabulary.eos_id, "unk_token": vocabulary.unk_id}
    texts = {name: vocabulary.tokens[index] for name, index in special.items() if index is not None}
    return {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": vocabulary.add_bos, **texts}
