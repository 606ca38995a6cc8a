"""KV caches: keys and values for GQA, latents for MLA."""

from __future__ import annotations

from sprat.runtime.cache.cache import Cache, Rows
from sprat.runtime.cache.entries import (
    STORAGES,
    EntryLayout,
    FloatEntries,
    Int8Entries,
    KVEntries,
    Storage,
    entry_layout,
    to_float32,
)
from sprat.runtime.cache.kv import KeysAndValues, KVCache
from sprat.runtime.cache.latent import LatentCache

__all__ = [
    "STORAGES",
    "Cache",
    "EntryLayout",
    "FloatEntries",
    "Int8Entries",
    "KVCache",
    "KVEntries",
    "KeysAndValues",
    "LatentCache",
    "Rows",
    "Storage",
    "entry_layout",
    "to_float32",
]
