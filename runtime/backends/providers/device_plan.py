"""Device memory that a provider needs for a model, against the memory that is free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sprat.devices.plan.footprint import SHORTEST_CONTEXT
from sprat.errors import DoesNotFitError
from sprat.runtime.backends.providers.free_memory import FreeMemory
from sprat.text import human_bytes

__all__ = ["DevicePlan"]

_CACHES = 2  # a run reads one cache, and returns one that is longer


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """A model in the memory of a provider's device.

    Attributes:
        provider: its short name.
        weight_bytes: all weights.
        entry_bytes: KV entries of a token.
        scores_bytes: attention scores of a run for one KV entry.
        pass_bytes: other activations of a run, and logits.
        context: in tokens.
        free: what is free; ``None`` where nothing says it.
    """

    provider: str
    weight_bytes: int
    entry_bytes: int
    scores_bytes: int
    pass_bytes: int
    context: int
    free: FreeMemory | None

    @property
    def needed_bytes(self) -> int:
        """Weights, caches and activations."""
        return self.weight_bytes + self.pass_bytes + self.context * self._bytes_per_token

    @property
    def _bytes_per_token(self) -> int:
        return _CACHES * self.entry_bytes + self.scores_bytes

    def text(self) -> str:
        """Needed and free memory, in words."""
        needed = f"{human_bytes(self.needed_bytes)} on its device"
        if self.free is None:
            return f"{needed}, whose free memory nothing says"
        return f"{needed}, of {human_bytes(self.free.n_bytes)} by {self.free.source}"

    def refusal(self, path: Path) -> DoesNotFitError | None:
        """The error for a model that needs more than is free; ``None`` where it fits, or nothing says what is free."""
        if self.free is None or self.needed_bytes <= self.free.n_bytes:
            return None
        activations = self.pass_bytes + self.context * self.scores_bytes
        return DoesNotFitError(
            f"{path}: {self.provider} needs {human_bytes(self.needed_bytes)} of its device (weights "
            f"{human_bytes(self.weight_bytes)}, KV cache for {self.context:,} tokens, twice, "
            f"{human_bytes(_CACHES * self.context * self.entry_bytes)}, activations {human_bytes(activations)}), "
            f"{human_bytes(self.needed_bytes - self.free.n_bytes)} more than the {human_bytes(self.free.n_bytes)} that "
            f"are free there by {self.free.source}; {self._remedy(self.free.n_bytes)}, or leave the provider out"
        )

    def _remedy(self, free_bytes: int) -> str:
        room = (free_bytes - self.weight_bytes - self.pass_bytes) // self._bytes_per_token
        if room >= SHORTEST_CONTEXT:
            return f"use a context of at most {room // SHORTEST_CONTEXT * SHORTEST_CONTEXT:,} tokens"
        return "use a model with fewer bits or fewer weights"
