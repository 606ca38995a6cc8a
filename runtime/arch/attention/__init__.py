"""Kinds of attention, one file each: their tensors, cache, GGUF keys and cost."""

from __future__ import annotations

from sprat.runtime.arch.attention.grouped import GroupedAttentionSpec
from sprat.runtime.arch.attention.latent import LatentAttentionSpec
from sprat.runtime.arch.attention.spec import AttentionSpec, CachePlane, Storage

__all__ = ["AttentionSpec", "CachePlane", "GroupedAttentionSpec", "LatentAttentionSpec", "Storage"]
