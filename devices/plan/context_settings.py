"""Settings of a llama.cpp context besides its length, and those that a plan for a GPU chooses from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "CACHE_ELEMENT_BYTES",
    "NO_WISHES",
    "PLANNED_CACHES",
    "CacheType",
    "ContextSettings",
    "ContextWishes",
]

CacheType: TypeAlias = Literal["f32", "f16", "int8", "int4"]

_CARD_BATCH = 512  # prompt tokens of a pass on a GPU: llama.cpp's default of a physical batch
CACHE_ELEMENT_BYTES: Mapping[CacheType, float] = {"f32": 4, "f16": 2, "int8": 34 / 32, "int4": 18 / 32}
"""Bytes of an element of llama.cpp's KV cache; int8 is Q8_0 and int4 Q4_0."""

PLANNED_CACHES: tuple[CacheType, ...] = ("f16", "int8")
"""Types that a plan chooses from, best quality first; the others only where they are asked for."""

_BATCHES = (_CARD_BATCH, 256, 128, 64)
_FLOAT = 4


class ContextSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of llama.cpp's context: attention, cache, and tokens of a pass.

    Attributes:
        cache: elements of the KV cache. Each layer's is where its attention is computed.
        flash_attention: whether attention is one kernel, without an array of scores; ``None`` for llama.cpp's choice.
        batch: prompt tokens of a pass.
    """

    cache: CacheType = "f16"
    flash_attention: bool | None = None
    batch: int = _CARD_BATCH

    def cache_bytes(self, f16_bytes: int) -> int:
        """Bytes of KV entries that take ``f16_bytes`` in float16."""
        return int(f16_bytes * CACHE_ELEMENT_BYTES[self.cache] / CACHE_ELEMENT_BYTES["f16"])

    def scores_bytes(self, n_heads: int, context: int) -> int:
        """Bytes of a layer's attention scores: float32, for each head, token of a pass and KV entry."""
        return 0 if self.flash_attention else _FLOAT * n_heads * self.batch * context

    def text(self) -> str:
        """The settings in one line of text.

        Example:
            >>> ContextSettings(flash_attention=True).text()
            'f16 cache, flash attention, 512 prompt tokens a pass'
        """
        attention = {True: ", flash attention", False: ", no flash attention", None: ""}[self.flash_attention]
        return f"{self.cache} cache{attention}, {self.batch} prompt tokens a pass"


class ContextWishes(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that the caller gave; ``None`` for those that a plan chooses."""

    cache: CacheType | None = None
    batch: int | None = None
    flash_attention: bool | None = None

    def to_try(
        self, caches: Sequence[CacheType] = PLANNED_CACHES, flash: Sequence[CacheType] = tuple(CACHE_ELEMENT_BYTES)
    ) -> Iterator[ContextSettings]:
        """Settings that a plan chooses from, best quality first, then the fastest for prompts.

        Integers are stored only with flash attention, which llama.cpp demands.

        Args:
            caches: of which to take one, where none is given.
            flash: those with which the GPU has flash attention.
        """
        for cache in [self.cache] if self.cache else caches:
            attention = cache in flash if self.flash_attention is None else self.flash_attention
            if attention or not cache.startswith("int"):
                for batch in [self.batch] if self.batch else _BATCHES:
                    yield ContextSettings(cache=cache, flash_attention=attention, batch=batch)

    def on_cpu(self, batch: int) -> ContextSettings:
        """Settings of a context in the CPU's memory; llama.cpp chooses whether flash attention helps there."""
        return ContextSettings(
            cache=self.cache or "f16", flash_attention=self.flash_attention, batch=min(self.batch or batch, batch)
        )


NO_WISHES = ContextWishes()
