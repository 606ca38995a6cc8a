"""The ``ModelShape`` of a GGUF from its keys, for llama-quantize's mixes; also of architectures unknown to sprat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sprat.quant.mixes import ModelShape

__all__ = ["shape_of_keys"]


def shape_of_keys(metadata: Mapping[str, Any]) -> ModelShape | None:
    """The shape of the model with these keys; ``None`` where they do not say it.

    Example:
        >>> shape_of_keys(
        ...     {
        ...         "general.architecture": "qwen2",
        ...         "qwen2.block_count": 24,
        ...         "qwen2.attention.head_count": 14,
        ...         "qwen2.attention.head_count_kv": 2,
        ...     }
        ... )
        ModelShape(n_layers=24, queries_per_kv=7, n_experts=0)
    """
    architecture = metadata.get("general.architecture")
    n_layers, n_heads = (_size(metadata, architecture, key) for key in ("block_count", "attention.head_count"))
    if n_layers is None or n_heads is None:
        return None
    n_kv_heads = _size(metadata, architecture, "attention.head_count_kv")
    n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
    n_experts = _size(metadata, architecture, "expert_count") or 0
    return ModelShape(n_layers, n_heads // n_kv_heads if n_kv_heads else 0, n_experts)


def _size(metadata: Mapping[str, Any], architecture: Any, key: str) -> int | None:
    """The number at this key, of the first layer if it has one per layer."""
    value = np.asarray(metadata.get(f"{architecture}.{key}", ())).ravel()
    return int(value[0]) if value.size and np.issubdtype(value.dtype, np.number) else None
