"""Caches of the tokens seen so far: keys and values for GQA, latents for MLA."""

from __future__ import annotations

from sprat.runtime.cache.cache import Cache
from sprat.runtime.cache.kv import KVCache, KVRows
from sprat.runtime.cache.latent import LatentCache
from sprat.runtime.cache.rows import STORAGES, FloatRows, Int8Rows, RowLayout, Rows, Storage, row_layout, widen

__all__ = [
    "STORAGES",
    "Cache",
    "FloatRows",
    "Int8Rows",
    "KVCache",
    "KVRows",
    "LatentCache",
    "RowLayout",
    "Rows",
    "Storage",
    "row_layout",
    "widen",
]
