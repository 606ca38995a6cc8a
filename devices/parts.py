"""The parts of a device and their figures; each figure says how it became known."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

__all__ = ["Accelerator", "Basis", "Compute", "Cores", "Memory", "Power", "Sourced", "Storage", "Thermal"]


class Basis(enum.StrEnum):
    """How a figure became known, the surest way first."""

    MEASURED = "measured"  # by us, on the device
    PUBLISHED = "published"  # by its maker, or by someone who measured it
    ASSUMED = "assumed"


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of a profile: unknown keys are errors, so that a misspelt figure cannot be left out unnoticed."""


class Sourced(_Part, frozen=True):
    """A number and why to believe it."""

    value: Annotated[float, msgspec.Meta(gt=0)]
    basis: Basis
    source: Annotated[str, msgspec.Meta(min_length=1)]


class Cores(_Part, frozen=True):
    """Cores of one kind. Operations count multiplications and additions, of the widest instructions that sprat uses."""

    kind: str  # "Cortex-A76"
    count: Annotated[int, msgspec.Meta(ge=1)]
    clock_ghz: Sourced
    features: tuple[str, ...]  # instruction sets, under the names that ``sprat doctor`` prints
    int8_ops_per_cycle: Sourced | None = None  # one core's peak
    f32_ops_per_cycle: Sourced | None = None

    @property
    def int8_gops(self) -> float:
        """Peak of all cores of this kind, 10^9 int8 operations per second; 0 where unknown."""
        return self.count * self.clock_ghz.value * (self.int8_ops_per_cycle.value if self.int8_ops_per_cycle else 0)

    @property
    def f32_gflops(self) -> float:
        """Peak of all cores of this kind, 10^9 float32 operations per second; 0 where unknown."""
        return self.count * self.clock_ghz.value * (self.f32_ops_per_cycle.value if self.f32_ops_per_cycle else 0)


class Compute(_Part, frozen=True):
    """What sprat's own kernels reach with all cores, where that was measured; peaks of the cores stand in elsewhere."""

    int8_gops: Sourced  # products of int4 blocks with 512 tokens
    one_token_gops: Sourced  # the same with one token, weights in the cache
    f32_gflops: Sourced  # attention of 512 tokens
    call_us: Sourced  # a call with next to nothing to do


class Memory(_Part, frozen=True):
    """RAM: how much, how much of it the system keeps, and how fast it is read."""

    total_bytes: Sourced
    system_bytes: Sourced
    peak_gbps: Sourced  # 10^9 bytes per second, of the interface
    sustained_gbps: Sourced | None = None  # what programs get, all cores reading
    one_core_gbps: Sourced | None = None
    cache_bytes: Sourced | None = None  # the largest cache that one program can count on

    @property
    def read_gbps(self) -> Sourced:
        """The best known figure for reading."""
        return self.sustained_gbps or self.peak_gbps


class Storage(_Part, frozen=True):
    """A medium that a model can be read from; rates in 10^6 bytes per second, the page cache aside."""

    kind: str  # "microSD", "NVMe"
    sequential_mbps: Sourced
    capacity_bytes: Sourced | None = None
    random_4kib_mbps: Sourced | None = None
    random_1mib_mbps: Sourced | None = None  # about an expert's size


class Accelerator(_Part, frozen=True):
    """A GPU or the like; one with ``shared_memory`` may take ``memory_bytes`` of the device's RAM."""

    name: str
    api: str  # "cuda", "vulkan"
    memory_bytes: Sourced
    peak_gbps: Sourced
    shared_memory: bool = False


class Power(_Part, frozen=True):
    """Power of the whole device."""

    idle_watts: Sourced | None = None
    load_watts: Sourced | None = None


class Thermal(_Part, frozen=True):
    """What heat does to it."""

    cooling: str  # "passive", "fan"
    throttle_celsius: Sourced | None = None
    sustained_share: Sourced | None = None  # of the first minute's speed that is left after five
