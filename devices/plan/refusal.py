"""The error for a model that needs more memory than it may use: the same for a device and for a memory limit."""

from __future__ import annotations

from sprat.devices.plan.footprint import SHORTEST_CONTEXT, Footprint
from sprat.errors import DoesNotFitError
from sprat.text import human_bytes

__all__ = ["refusal"]

_SHORTER_BATCHES = (128, 64, 32)
_FEWEST_BITS = 0.25  # of the weights' bytes, at best: float16 to four bits


def refusal(footprint: Footprint, usable_bytes: int, subject: str, *, streams: bool = False) -> DoesNotFitError | None:
    """The error for a model that needs more than ``usable_bytes``, with sizes and a remedy; ``None`` when it fits.

    Args:
        footprint: what the model needs.
        usable_bytes: memory that it may use.
        subject: begins the message: a file and a backend, or a quantization and a device.
        streams: whether experts that do not fit may be streamed from storage.
    """
    needed = footprint.least_bytes if streams else footprint.total_bytes
    if needed <= usable_bytes:
        return None
    streamed = f", {human_bytes(needed)} with experts streamed" if needed < footprint.total_bytes else ""
    limit = human_bytes(usable_bytes)
    if limit == human_bytes(needed):
        limit = f"{usable_bytes:,} bytes"
    return DoesNotFitError(
        f"{subject} needs {human_bytes(footprint.total_bytes)} "
        f"(weights {human_bytes(footprint.weight_bytes)}, KV cache for {footprint.context:,} tokens "
        f"{human_bytes(footprint.cache_bytes)}, buffers {human_bytes(footprint.buffer_bytes)}){streamed}, "
        f"{human_bytes(needed - usable_bytes)} more than the {limit} that it may use; "
        f"{_remedy(footprint, needed, usable_bytes)}"
    )


def _remedy(footprint: Footprint, needed: int, usable_bytes: int) -> str:
    """A shorter context where that is enough; else the least memory, and fewer bits where these may do."""
    without_cache = needed - footprint.cache_bytes
    for batch in _SHORTER_BATCHES:
        spared = footprint.buffer_bytes - footprint.of_batch(batch).buffer_bytes
        if batch < footprint.batch and needed - spared <= usable_bytes:
            return f"use a batch of at most {batch} prompt tokens (--batch {batch}), or allow more memory"
    if context := footprint.context_within(usable_bytes - without_cache):
        return f"use a context of at most {context:,} tokens, or allow more memory"
    context = min(footprint.context, SHORTEST_CONTEXT)
    least = without_cache + context * footprint.cache_bytes_per_token
    fewest = least - footprint.weight_bytes + int(footprint.weight_bytes * _FEWEST_BITS)
    smaller = "fewer bits per weight or a smaller model" if fewest <= usable_bytes else "a smaller model"
    return (
        f"no context is short enough: allow at least {human_bytes(least)}, for a context of {context:,} tokens, or use "
        f"{smaller}"
    )
