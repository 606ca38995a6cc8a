"""``LatentCache``: what multi-head latent attention keeps of a token, instead of keys and values per head."""

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array
from sprat.runtime.cache.cache import Cache
from sprat.runtime.cache.entries import KVEntries

__all__ = ["LatentCache"]


class LatentCache(Cache):
    """``kv_lora_rank + qk_rope_head_dim`` elements per token and layer (512 + 64 in every published DeepSeek).

    A row is the normalised latent, then the rotated key part that all heads share; an int8 cache keeps that part in
    float16, since its few elements are larger than the latent's and decide every head's scores.
    """

    def append(self, layer: int, latents: F32Array, rope_keys: F32Array) -> KVEntries:
        """Store ``(n, kv_lora_rank)`` and ``(n, qk_rope_head_dim)`` of new tokens; returns all, ``(t, latent_dim)``."""
        return self._write(0, layer, np.concatenate([latents, rope_keys], axis=-1)[None])[0]
