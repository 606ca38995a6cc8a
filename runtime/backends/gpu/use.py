"""A backend's use of a GPU: device, placement, settings, and the bytes that move out of the CPU's memory."""

from __future__ import annotations

import msgspec

from sprat.devices.plan.context_settings import ContextSettings
from sprat.devices.plan.placement import Placement

__all__ = ["GPUUse"]


class GPUUse(msgspec.Struct, frozen=True, kw_only=True):
    """A placement on a device.

    Attributes:
        device: llama.cpp's name, ``Vulkan0``.
        description: the driver's.
        placement: what is on the card.
        settings: of the context.
        card_bytes: weights, KV cache and buffers there, as planned.
        dense_bytes: weights there that every token reads.
        experts_bytes: weights of routed experts there.
    """

    device: str
    description: str
    placement: Placement
    settings: ContextSettings = msgspec.field(default_factory=ContextSettings)
    card_bytes: int = 0
    dense_bytes: int = 0
    experts_bytes: int = 0

    def text(self) -> str:
        """One line."""
        return f"{self.device} ({self.description}): {self.placement.text()}; {self.settings.text()}"
