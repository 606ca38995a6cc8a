"""Whether a model fits a device, what goes where in its memory, and which quantization is the best that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sprat.devices.footprint import Footprint
from sprat.devices.profile import DeviceProfile
from sprat.errors import DoesNotFitError

__all__ = ["MemoryPart", "Plan", "choose_quant"]


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """One line of a memory map."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One footprint on one device."""

    profile: DeviceProfile
    footprint: Footprint
    usable_bytes: int

    @property
    def spare_bytes(self) -> int:
        """What is left when everything is loaded; negative when it does not fit."""
        return self.usable_bytes - self.footprint.total_bytes

    @property
    def fits(self) -> bool:
        """Whether weights, a full cache and buffers fit together."""
        return self.spare_bytes >= 0

    @property
    def verdict(self) -> str:
        """One line: fits or not, and by how much."""
        relation = f"fits {self.profile.name}" if self.fits else f"does not fit {self.profile.name}"
        margin = f"{abs(self.spare_bytes):,} bytes {'to spare' if self.fits else 'too large'}"
        return f"{self.footprint.quant} {relation}: {margin} at a context of {self.footprint.context:,} tokens"

    def memory_map(self) -> tuple[MemoryPart, ...]:
        """All of the device's memory, part by part; an overcommitted one has no spare part."""
        footprint = self.footprint
        parts = (
            MemoryPart("resident weights", footprint.resident_bytes),
            MemoryPart("experts", footprint.routed_bytes),
            MemoryPart("cache", footprint.cache_bytes),
            MemoryPart("buffers", footprint.buffer_bytes),
            MemoryPart("system", int(self.profile.memory.total_bytes.value) - self.usable_bytes),
            MemoryPart("spare", max(self.spare_bytes, 0)),
        )
        return tuple(part for part in parts if part.size_bytes)


def choose_quant(footprints: Sequence[Footprint], profile: DeviceProfile, *, force: bool = False) -> Plan:
    """The first of ``footprints``, best quality first, that fits ``profile``.

    Args:
        footprints: of one model, at least one.
        profile: the device.
        force: take the smallest when none fits, instead of raising.

    Raises:
        DoesNotFitError: none fits; the message says what is missing, and what a smaller context would change.
    """
    plans = [Plan(profile, footprint, profile.usable_bytes) for footprint in footprints]
    for plan in plans:
        if plan.fits:
            return plan
    smallest = max(plans, key=lambda plan: plan.spare_bytes)
    if force:
        return smallest
    raise DoesNotFitError(_refusal(smallest))


def _refusal(plan: Plan) -> str:
    footprint = plan.footprint
    without_cache = plan.spare_bytes + footprint.cache_bytes
    shorter = max(without_cache, 0) // max(footprint.cache_bytes_per_token, 1)
    remedy = (
        f"a context of {shorter:,} tokens would fit" if shorter else "no context is short enough: use a smaller model"
    )
    return (
        f"{plan.verdict}: it needs {footprint.total_bytes:,} bytes ({footprint.weight_bytes:,} of weights, "
        f"{footprint.cache_bytes:,} of cache, {footprint.buffer_bytes:,} of buffers), and {plan.usable_bytes:,} of "
        f"{int(plan.profile.memory.total_bytes.value):,} are usable; {remedy}, or go on with --force and let it swap"
    )
