"""``LatentCache``: what multi-head latent attention keeps of a token, instead of keys and values per head."""

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array
from sprat.runtime.arch.spec import MLASpec
from sprat.runtime.cache.cache import Cache, Plane
from sprat.runtime.cache.rows import RowLayout, Rows, Storage

__all__ = ["LatentCache", "latent_layout"]


class LatentCache(Cache):
    """``kv_lora_rank + qk_rope_head_dim`` numbers per token and layer (512 + 64 in every published DeepSeek).

    A row is the normalised latent, then the rotated key part that all heads share, which int8 leaves in float16: its
    few numbers are larger than the latent's, and every head's scores hang on them.
    """

    def __init__(self, mla: MLASpec, n_layers: int, capacity: int, storage: Storage = "f32") -> None:
        super().__init__(n_layers, capacity, (Plane(1, latent_layout(mla, storage)),))

    def append(self, layer: int, latents: F32Array, rope_keys: F32Array) -> Rows:
        """Store ``(n, kv_lora_rank)`` and ``(n, qk_rope_head_dim)`` of new tokens; returns all, ``(t, latent_dim)``."""
        return self._write(0, layer, np.concatenate([latents, rope_keys], axis=-1)[None])[0]


def latent_layout(mla: MLASpec, storage: Storage) -> RowLayout:
    """How a row is kept. In int8, 128 numbers of a latent share a scale; 32 where 128 does not divide it."""
    group = 32 if mla.kv_lora_rank % 128 else 128
    return RowLayout(storage, mla.latent_dim, n_exact=mla.qk_rope_head_dim, group=group)
