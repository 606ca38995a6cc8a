"""GGUF keys that do not change the computation: per-layer arrays of one value, and keys whose value means "off".

llama.cpp reads some sizes as a scalar or as an array with one value per layer (``get_key_or_arr``), takes 0 as "not
used" for many keys, and ignores keys that an architecture does not read. Writers make use of all three.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from sprat.runtime.arch.fields import Fields

__all__ = ["HARMLESS", "take_unused", "usual_keys"]

HARMLESS = (
    "attention.group_norm_epsilon",  # of other kinds of norm
    "attention.group_norm_groups",
    "attention.layer_norm_epsilon",
    "pooling_type",  # of embeddings, not of logits
    "rope.scaling.finetuned",
    "tensor_data_layout",  # "Meta AI original pth" in old files; llama.cpp does not read it
    "vocab_size",
)
"""Keys that llama.cpp does not use for logits, whatever their value."""

_ZERO_IS_UNSET = frozenset(
    {
        "expert_gating_func",
        "expert_group_count",
        "expert_group_used_count",
        "expert_weights_scale",
        "rope.scale_linear",
        "rope.scaling.factor",
    }
)
_ZERO: Collection[Any] = (0, False)
_ZERO_OR_ONE: Collection[Any] = (0, 1, False)
_UNUSED: Mapping[str, Collection[Any]] = {
    **dict.fromkeys(
        (
            "attention.clamp_kqv",
            "attention.kv_lora_rank",
            "attention.max_alibi_bias",
            "attention.q_lora_rank",
            "attention.scale",
            "attention.shared_kv_layers",
            "attention.sliding_window",
            "attn_logit_softcapping",
            "expert_count",
            "expert_feed_forward_length",
            "expert_gating_func",
            "expert_shared_count",
            "expert_shared_feed_forward_length",
            "expert_used_count",
            "final_logit_softcapping",
            "leading_dense_block_count",
            "nextn_predict_layers",
            "router_logit_softcapping",
            "swin_norm",
            "use_parallel_residual",
        ),
        _ZERO,
    ),
    **dict.fromkeys(
        (
            "attention.output_scale",
            "embedding_scale",
            "expert_group_count",
            "expert_group_used_count",
            "expert_weights_norm",
            "expert_weights_scale",
            "logit_scale",
            "residual_scale",
        ),
        _ZERO_OR_ONE,
    ),
}


def usual_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    """``keys`` as sprat writes them: scalars for per-layer arrays of one value, no key that is 0 for "not set".

    Args:
        keys: an architecture's keys without the prefix; ``block_count`` is the length of a per-layer array.

    Example:
        >>> usual_keys({"block_count": 2, "attention.head_count_kv": np.array([4, 4]), "rope.scaling.factor": 0.0})
        {'block_count': 2, 'attention.head_count_kv': 4}
    """
    n_layers = keys.get("block_count")

    def scalar(value: Any) -> Any:
        is_per_layer = isinstance(value, np.ndarray) and isinstance(n_layers, int) and 0 < value.size == n_layers
        return value[0].item() if is_per_layer and (value == value[0]).all() else value

    found = {key: scalar(value) for key, value in keys.items()}
    return {key: value for key, value in found.items() if key not in _ZERO_IS_UNSET or not _is_zero(value)}


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


def take_unused(fields: Fields) -> None:
    """Accept the keys that the architecture did not read and whose value says that they are not used."""
    fields.rest_must_be(_UNUSED)
