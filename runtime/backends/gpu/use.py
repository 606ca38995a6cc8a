"""What a backend does with a GPU: the device, the placement, and the bytes that leave the CPU's memory."""

from __future__ import annotations

from dataclasses import dataclass

from sprat.devices.plan.placement import Placement

__all__ = ["GPUUse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUUse:
    """A placement on a device.

    Attributes:
        device: llama.cpp's name, ``Vulkan0``.
        description: the driver's.
        placement: what is on the card.
        card_bytes: weights, KV cache and buffers there, as planned.
        dense_bytes: weights there that every token reads.
        experts_bytes: weights of routed experts there.
    """

    device: str
    description: str
    placement: Placement
    card_bytes: int = 0
    dense_bytes: int = 0
    experts_bytes: int = 0

    def text(self) -> str:
        """One line."""
        return f"{self.device} ({self.description}): {self.placement.text()}"
