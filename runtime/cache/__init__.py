"""Caches of the tokens seen so far: keys and values for GQA, latents for MLA."""

from __future__ import annotations

from sprat.runtime.cache.cache import Cache, Rows, Storage
from sprat.runtime.cache.kv import KVCache, KVRows
from sprat.runtime.cache.latent import LatentCache

__all__ = ["Cache", "KVCache", "KVRows", "LatentCache", "Rows", "Storage"]
