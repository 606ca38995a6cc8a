"""Flash attention on a GPU: the driver says for which storages of a model's KV cache it supports it."""

from __future__ import annotations

from sprat.devices.plan.context_settings import CacheType
from sprat.runtime.backends.gpu.attention_shape import AttentionShape
from sprat.runtime.backends.gpu.ggml import CACHE_TYPES, InitParams, ggml

__all__ = ["flash_caches"]

_F32, _F16 = CACHE_TYPES["f32"], CACHE_TYPES["f16"]
_BLOCK = 32  # elements of a block of Q8_0 and Q4_0, of which a row has a whole number
_ENTRIES, _TOKENS = 256, 1  # llama.cpp pads the entries to this; a decode pass
_SCRATCH_BYTES = 1 << 16  # of descriptions of tensors


def flash_caches(device: int, shape: AttentionShape) -> tuple[CacheType, ...]:
    """The storages of keys and values with which ``device`` has one kernel for a layer's attention."""
    return tuple(
        name for name, number in CACHE_TYPES.items() if _has_blocks(name, shape) and _supports(device, shape, number)
    )


def _has_blocks(name: CacheType, shape: AttentionShape) -> bool:
    return not name.startswith("int") or not (shape.key_width % _BLOCK or shape.value_width % _BLOCK)


def _supports(device: int, shape: AttentionShape, cache_type: int) -> bool:
    library = ggml()
    context = library.ggml_init(InitParams(_SCRATCH_BYTES, None, True))
    try:

        def tensor(kind: int, *sizes: int) -> int:
            found: int = library.ggml_new_tensor_4d(context, kind, *sizes, 1)
            return found

        queries = tensor(_F32, shape.key_width, _TOKENS, shape.n_heads)
        keys = tensor(cache_type, shape.key_width, _ENTRIES, shape.n_kv_heads)
        values = tensor(cache_type, shape.value_width, _ENTRIES, shape.n_kv_heads)
        mask = tensor(_F16, _ENTRIES, _TOKENS, 1)
        attention = library.ggml_flash_attn_ext(context, queries, keys, values, mask, 1.0, 0.0, 0.0)
        return bool(library.ggml_backend_dev_supports_op(device, attention))
    finally:
        library.ggml_free(context)
