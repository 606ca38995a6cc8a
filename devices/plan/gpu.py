"""Whether a model would fit a device's graphics processor, and the most that its memory could give.

sprat computes on the processor, so nothing here is fitted to a measurement: what is said is an upper limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from sprat.devices.parts import Accelerator
from sprat.devices.plan.footprint import Footprint

__all__ = ["GraphicsFit", "fit_graphics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphicsFit:
    """A model in the memory of an accelerator.

    Attributes:
        name: of the accelerator.
        api: what a program must be built for to use it.
        memory_bytes: of it.
        spare_bytes: what weights, a full cache and buffers leave; negative when they do not fit together.
        most_tokens_per_s: if a token cost no more than reading its weights once at the memory's peak; ``None`` when
            they do not fit, or the model's work is not known.
    """

    name: str
    api: str
    memory_bytes: int
    spare_bytes: int
    most_tokens_per_s: float | None


def fit_graphics(accelerator: Accelerator, footprint: Footprint) -> GraphicsFit:
    """``footprint`` on ``accelerator``."""
    memory_bytes = int(accelerator.memory_bytes.value)
    spare_bytes = memory_bytes - footprint.total_bytes
    limited = footprint.work if spare_bytes >= 0 else None
    return GraphicsFit(
        name=accelerator.name,
        api=accelerator.api,
        memory_bytes=memory_bytes,
        spare_bytes=spare_bytes,
        most_tokens_per_s=1e9 * accelerator.peak_gbps.value / limited.bytes_per_token if limited else None,
    )
