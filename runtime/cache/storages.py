"""What a cache of the native backend may keep its numbers as."""

from __future__ import annotations

from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.cache.rows import Storage

__all__ = ["storages"]


def storages(spec: ModelSpec) -> tuple[Storage, ...]:
    """The usual one first, then those that take less.

    Latents are kept in int8 from the start: normalised, and with what rotates in float16, they lose less than products
    with activations in int8 do anyway, and attention over them is faster (docs/speed.md).
    """
    return ("int8",) if spec.mla else ("f16", "int8")
