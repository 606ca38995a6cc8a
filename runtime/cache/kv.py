"""``KVCache``: keys and values per head, for grouped-query attention (Llama, Qwen2)."""

from __future__ import annotations

import msgspec

from sprat.arrays import F32Array
from sprat.runtime.cache.cache import Cache
from sprat.runtime.cache.entries import KVEntries

__all__ = ["KVCache", "KeysAndValues"]


class KeysAndValues(msgspec.Struct, frozen=True, eq=False):
    """Keys and values of a layer, views of the cache: ``(kv_heads, t, head_dim)`` each."""

    keys: KVEntries
    values: KVEntries


class KVCache(Cache):
    """``2 * n_kv_heads * head_dim`` elements per token and layer."""

    def append(self, layer: int, keys: F32Array, values: F32Array) -> KeysAndValues:
        """Store rotated keys and values ``(n, kv_heads, head_dim)`` of new tokens; returns those of all tokens."""
        return KeysAndValues(self._write(0, layer, keys.swapaxes(0, 1)), self._write(1, layer, values.swapaxes(0, 1)))
