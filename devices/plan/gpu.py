"""Whether a model fits a device's GPU, and the upper limit of its speed there.

sprat computes on the CPU, so nothing here is fitted to a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from sprat.devices.parts import Accelerator
from sprat.devices.plan.footprint import Footprint

__all__ = ["GPUFit", "fit_gpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUFit:
    """A model in the memory of a GPU.

    Attributes:
        name: of the GPU.
        api: what a program must be built for to use it: ``cuda``, ``vulkan``.
        memory_bytes: of the GPU.
        spare_bytes: what weights, a full KV cache and buffers leave; negative when they do not fit.
        most_tokens_per_s: decode speed if a token only reads the weights once at peak bandwidth; ``None`` when the
            model does not fit or the cost of a pass is not known.
    """

    name: str
    api: str
    memory_bytes: int
    spare_bytes: int
    most_tokens_per_s: float | None


def fit_gpu(accelerator: Accelerator, footprint: Footprint) -> GPUFit:
    """``footprint`` in the memory of ``accelerator``."""
    memory_bytes = int(accelerator.memory_bytes.value)
    spare_bytes = memory_bytes - footprint.total_bytes
    cost = footprint.pass_cost if spare_bytes >= 0 else None
    return GPUFit(
        name=accelerator.name,
        api=accelerator.api,
        memory_bytes=memory_bytes,
        spare_bytes=spare_bytes,
        most_tokens_per_s=1e9 * accelerator.peak_gbps.value / cost.bytes_per_token if cost else None,
    )
