"""The error for a model that needs more memory than it may use: the same for a device and for a memory limit."""

from __future__ import annotations

from sprat.devices.plan.footprint import Footprint
from sprat.errors import DoesNotFitError
from sprat.text import human_bytes

__all__ = ["refusal"]


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
    return DoesNotFitError(
        f"{subject} needs {human_bytes(footprint.total_bytes)} "
        f"(weights {human_bytes(footprint.weight_bytes)}, KV cache for {footprint.context:,} tokens "
        f"{human_bytes(footprint.cache_bytes)}, buffers {human_bytes(footprint.buffer_bytes)}){streamed}, "
        f"{human_bytes(needed - usable_bytes)} more than the {human_bytes(usable_bytes)} that it may use; "
        f"{_remedy(footprint, usable_bytes - (needed - footprint.cache_bytes))}"
    )


def _remedy(footprint: Footprint, left_bytes: int) -> str:
    """A shorter context where that is enough, for which ``left_bytes`` are available; else fewer bits."""
    if context := footprint.context_within(left_bytes):
        return f"use a context of at most {context:,} tokens, or allow more memory"
    return "no context is short enough: use fewer bits per weight or a smaller model, or allow more memory"
