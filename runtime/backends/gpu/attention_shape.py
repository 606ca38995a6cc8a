"""The attention of a model, as a GPU's driver is asked about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sprat.runtime.arch.attention import AttentionSpec

__all__ = ["AttentionShape"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """A layer's attention as llama.cpp computes it: heads of queries and of KV entries, and elements of a head's."""

    n_heads: int
    n_kv_heads: int
    key_width: int
    value_width: int

    @classmethod
    def of(cls, attention: AttentionSpec) -> Self:
        """The shape of keys and values; of MLA, a latent is the key, and without its RoPE part the value."""
        keys, values = attention.planes[0], attention.planes[-1]
        return cls(
            n_heads=attention.n_heads,
            n_kv_heads=keys.n_heads,
            key_width=keys.width,
            value_width=values.width - values.n_exact,
        )
