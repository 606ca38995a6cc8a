"""What a model asks of a device's memory, in bytes. Computed elsewhere: this room knows no models."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Footprint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One model in one quantization, running with one context."""

    quant: str  # "int4"
    resident_bytes: int  # weights that every token reads
    routed_bytes: int  # weights of experts, of which a token reads some
    cache_bytes_per_token: int
    context: int  # tokens
    buffer_bytes: int  # activations, logits, tokenizer, the program itself

    @property
    def weight_bytes(self) -> int:
        """All weights."""
        return self.resident_bytes + self.routed_bytes

    @property
    def cache_bytes(self) -> int:
        """The cache of a full context."""
        return self.cache_bytes_per_token * self.context

    @property
    def total_bytes(self) -> int:
        """Everything."""
        return self.weight_bytes + self.cache_bytes + self.buffer_bytes
