"""``KVCache``: keys and values per head, for grouped-query attention (Llama, Qwen2)."""

from __future__ import annotations

from dataclasses import dataclass

from sprat.arrays import F32Array
from sprat.runtime.cache.cache import Cache
from sprat.runtime.cache.rows import Rows

__all__ = ["KVCache", "KVRows"]


@dataclass(frozen=True, slots=True, eq=False)
class KVRows:
    """One layer's filled rows, views of the cache: ``(kv_heads, t, head_dim)`` each."""

    keys: Rows
    values: Rows


class KVCache(Cache):
    """``2 * n_kv_heads * head_dim`` elements per token and layer."""

    def append(self, layer: int, keys: F32Array, values: F32Array) -> KVRows:
        """Store rotated keys and values ``(n, kv_heads, head_dim)`` of new tokens; returns all rows of the layer."""
        return KVRows(self._write(0, layer, keys.swapaxes(0, 1)), self._write(1, layer, values.swapaxes(0, 1)))
