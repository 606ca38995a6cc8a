"""Time per token of a matrix by its block format: formats of fewer bytes may take more instructions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sprat.devices.plan.counted import load_counted
from sprat.devices.plan.efficiency import load_efficiency
from sprat.devices.plan.predict import device_rates
from sprat.devices.profile import DeviceProfile

__all__ = ["FormatSpeed"]


@dataclass(frozen=True, slots=True)
class FormatSpeed:
    """Speed of products with one token on a device.

    Attributes:
        profile: the device.
        read_bytes: bytes of weights that are read from memory, per second.
        products: products with Q4_0 weights, per second.
    """

    profile: DeviceProfile
    read_bytes: float
    products: float

    @classmethod
    def of(cls, profile: DeviceProfile) -> Self:
        """The speed that the plans of ``profile`` assume."""
        efficiency = load_efficiency()
        rates, factors = device_rates(profile, efficiency, profile.storage[0]), efficiency.decode
        return cls(profile, rates.read_bytes * factors.memory, rates.gemv_ops * factors.compute / 2)

    def seconds(self, n_weights: float, n_bytes: float, format: str) -> float:
        """The longer of reading ``n_bytes`` and computing with ``n_weights`` in ``format``."""
        relative = load_counted().relative_cycles(self.profile.fast_cores).get(format, 1.0)
        return max(n_bytes / self.read_bytes, n_weights * relative / self.products)
