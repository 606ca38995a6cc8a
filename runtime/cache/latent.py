"""``LatentCache``: one latent per token, for multi-head latent attention (DeepSeek)."""

from __future__ import annotations

import numpy as np

from sprat.arrays import F32Array
from sprat.runtime.cache.cache import Cache
from sprat.runtime.cache.entries import KVEntries

__all__ = ["LatentCache"]


class LatentCache(Cache):
    """``kv_lora_rank + qk_rope_head_dim`` elements per token and layer (512 + 64 in every published DeepSeek).

    A KV entry is the normalized latent, then the rotated part of the key that all heads share. An int8 cache stores
    that part in float16: its elements are larger than the latent's, and every head's scores depend on them.
    """

    def append(self, layer: int, latents: F32Array, rope_keys: F32Array) -> KVEntries:
        """Store ``(n, kv_lora_rank)`` and ``(n, qk_rope_head_dim)`` of new tokens; returns all, ``(t, latent_dim)``."""
        return self._write(0, layer, np.concatenate([latents, rope_keys], axis=-1)[None])[0]
