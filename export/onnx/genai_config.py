"""``genai_config.json``: the model description that onnxruntime-genai reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sprat.runtime.arch.architecture import architectures
from sprat.runtime.arch.attention import GroupedAttentionSpec
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.generate.sampling_defaults import config_from_sampling, sampling_from_metadata
from sprat.runtime.memory.footprint import DEFAULT_CONTEXT
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, Vocabulary

__all__ = ["genai_config"]

_SEARCH = frozenset({"do_sample", "temperature", "top_k", "top_p", "repetition_penalty"})  # it has no min_p


def genai_config(
    spec: ModelSpec, tokenizer: Mapping[str, Any], file_name: str, context: int | None = None
) -> bytes | None:
    """The file's content, or ``None`` for a model that onnxruntime-genai does not support, such as MLA.

    Args:
        spec: the architecture.
        tokenizer: the ``tokenizer.*`` and ``general.sampling.*`` keys of a GGUF.
        file_name: name of the graph's file.
        context: tokens that the cache is reserved for, as the plan counts them; by default the model's limit, at most
            :data:`~sprat.runtime.memory.footprint.DEFAULT_CONTEXT`. A program asks for more by ``max_length``.
    """
    model_type = architectures()[spec.architecture].genai_type
    if model_type is None or not isinstance(spec.attention, GroupedAttentionSpec):
        return None
    config = {
        "model": {
            "type": model_type,
            "vocab_size": spec.vocab_size,
            "context_length": spec.max_context,
            **_special_tokens(tokenizer),
            "decoder": _decoder(spec, spec.attention, file_name),
        },
        "search": {
            "max_length": min(context or DEFAULT_CONTEXT, spec.max_context),
            "past_present_share_buffer": True,
            "do_sample": False,
            **_sampling(spec, tokenizer),
        },
    }
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"


def _sampling(spec: ModelSpec, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """The model's parameters that onnxruntime-genai knows: an unknown one, or a larger top_k, and it loads nothing."""
    found = config_from_sampling(sampling_from_metadata(tokenizer))
    known = {name: value for name, value in found.items() if name in _SEARCH}
    return known | ({"top_k": min(int(known["top_k"]), spec.vocab_size)} if "top_k" in known else {})


def _decoder(spec: ModelSpec, attention: GroupedAttentionSpec, file_name: str) -> dict[str, Any]:
    return {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": file_name,
        "head_size": attention.head_dim,
        "hidden_size": spec.hidden_size,
        "num_attention_heads": attention.n_heads,
        "num_hidden_layers": spec.n_layers,
        "num_key_value_heads": attention.n_kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }


def _special_tokens(tokenizer: Mapping[str, Any]) -> dict[str, int | list[int]]:
    """Ids of BOS, of the end tokens and of padding; BOS and padding default to EOS."""
    if tokenizer.get("tokenizer.ggml.model", TokenizerModel.NONE) == TokenizerModel.NONE:
        return {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    vocabulary = Vocabulary.from_metadata(tokenizer)
    ends = sorted(vocabulary.eog_ids) or [0]
    last = ends[0] if vocabulary.eos_id is None else vocabulary.eos_id
    first, padding = (last if index is None else index for index in (vocabulary.bos_id, vocabulary.pad_id))
    return {"bos_token_id": first, "eos_token_id": ends if len(ends) > 1 else last, "pad_token_id": padding}
