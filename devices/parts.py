"""The parts of a device profile; each value has a basis and a source."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

__all__ = ["Accelerator", "Basis", "Compute", "Cores", "Memory", "Power", "Sourced", "Storage", "Thermal"]


class Basis(enum.StrEnum):
    """Origin of a value, most reliable first."""

    MEASURED = "measured"  # by sprat, on the device
    PUBLISHED = "published"  # by its maker, or a measurement by others
    ASSUMED = "assumed"


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of a profile; unknown keys are errors, so that a misspelt key is noticed."""


class Sourced(_Part, frozen=True):
    """A value with its basis and source."""

    value: Annotated[float, msgspec.Meta(gt=0)]
    basis: Basis
    source: Annotated[str, msgspec.Meta(min_length=1)]


class Cores(_Part, frozen=True):
    """Cores of one kind. A multiply-add counts as two operations; peaks are of the widest instructions sprat uses."""

    kind: str  # "Cortex-A76"
    count: Annotated[int, msgspec.Meta(ge=1)]
    clock_ghz: Sourced
    features: tuple[str, ...]  # instruction sets, named as in ``sprat doctor``
    int8_ops_per_cycle: Sourced | None = None  # peak of one core
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
    """Measured rates of sprat's kernels with all cores; without it they are estimated from the cores' peaks."""

    int8_gops: Sourced  # product of int4 weights with 512 tokens
    one_token_gops: Sourced  # the same with one token, weights in the CPU's cache
    f32_gflops: Sourced  # attention over 512 tokens
    call_us: Sourced  # an empty kernel call, in microseconds


class Memory(_Part, frozen=True):
    """RAM: its size, what the system uses of it, and its bandwidth."""

    total_bytes: Sourced
    system_bytes: Sourced
    peak_gbps: Sourced  # of the interface, in 10^9 bytes per second
    sustained_gbps: Sourced | None = None  # of a program that reads with all cores
    one_core_gbps: Sourced | None = None
    cache_bytes: Sourced | None = None  # the largest CPU cache that one program can count on

    @property
    def read_gbps(self) -> Sourced:
        """Sustained bandwidth if known, else the peak."""
        return self.sustained_gbps or self.peak_gbps


class Storage(_Part, frozen=True):
    """A storage device; rates of uncached reads, in 10^6 bytes per second."""

    kind: str  # "microSD", "NVMe"
    sequential_mbps: Sourced
    capacity_bytes: Sourced | None = None
    random_4kib_mbps: Sourced | None = None
    random_1mib_mbps: Sourced | None = None  # about the size of an expert


class Accelerator(_Part, frozen=True):
    """A GPU; with ``shared_memory``, ``memory_bytes`` is the part of the device's RAM that it may use."""

    name: str
    api: str  # "cuda", "vulkan"
    memory_bytes: Sourced
    peak_gbps: Sourced
    shared_memory: bool = False
    bus_gbps: Sourced | None = None  # between the device's RAM and a card's own memory
    layer_us: Sourced | None = None  # of a layer without its reads, in microseconds: starting its kernels
    keep_off: str | None = None  # why the CPU is the better choice
    provider_options: dict[str, dict[str, str]] = {}  # of onnxruntime's providers, by their short names


class Power(_Part, frozen=True):
    """Power of the whole device."""

    idle_watts: Sourced | None = None
    load_watts: Sourced | None = None


class Thermal(_Part, frozen=True):
    """Cooling and throttling."""

    cooling: str  # "passive", "fan"
    throttle_celsius: Sourced | None = None
    sustained_share: Sourced | None = None  # speed after five minutes / speed of the first minute
