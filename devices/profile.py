"""What a device is, in figures that say where they come from. One device, one TOML file in ``devices/profiles/``.

A file names the device and lists its parts; every number is a table of value, basis and source::

    name = "rpi5-8gb"
    title = "Raspberry Pi 5, 8 GB"
    soc = "Broadcom BCM2712"

    [memory]
    total_bytes = { value = 8_589_934_592, basis = "published", source = "product page: 8GB" }
    system_bytes = { value = 1_073_741_824, basis = "assumed", source = "a desktop that idles, and some air" }

Unknown keys are refused, so a misspelt figure cannot be left out unnoticed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated

import msgspec

from sprat.errors import DeviceError, unknown_name

__all__ = [
    "Accelerator",
    "Basis",
    "Cores",
    "DeviceProfile",
    "Figure",
    "Memory",
    "Storage",
    "load_profile",
    "parse_profile",
    "profile_names",
]


class Basis(enum.StrEnum):
    """How a figure became known."""

    MEASURED = "measured"  # by us, on the device
    PUBLISHED = "published"  # by its maker, or by someone who measured it
    ASSUMED = "assumed"


class Figure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number and why to believe it."""

    value: Annotated[float, msgspec.Meta(gt=0)]
    basis: Basis
    source: Annotated[str, msgspec.Meta(min_length=1)]


class Cores(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cores of one kind."""

    kind: str  # "Cortex-A76"
    count: Annotated[int, msgspec.Meta(ge=1)]
    clock_ghz: Figure
    features: tuple[str, ...]  # instruction sets, under the names that ``sprat doctor`` prints


class Memory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """RAM: how much, how much of it the system keeps, and how fast it is read."""

    total_bytes: Figure
    system_bytes: Figure
    peak_gbps: Figure  # 10^9 bytes per second, of the interface
    sustained_gbps: Figure | None = None  # what programs get


class Storage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A medium that a model can be read from."""

    kind: str  # "microSD", "NVMe"
    sequential_mbps: Figure  # 10^6 bytes per second


class Accelerator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GPU or the like with memory of its own."""

    name: str
    api: str  # "cuda", "vulkan"
    memory_bytes: Figure
    peak_gbps: Figure


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device."""

    name: str  # "rpi5-8gb", also the file's
    title: str
    soc: str
    cores: Annotated[tuple[Cores, ...], msgspec.Meta(min_length=1)]
    memory: Memory
    storage: Annotated[tuple[Storage, ...], msgspec.Meta(min_length=1)]
    accelerator: Accelerator | None = None

    @property
    def usable_bytes(self) -> int:
        """RAM that the system leaves to a model."""
        return int(self.memory.total_bytes.value - self.memory.system_bytes.value)

    @property
    def n_cores(self) -> int:
        """Cores of all kinds."""
        return sum(cores.count for cores in self.cores)


def profile_names() -> list[str]:
    """All profiles that come with sprat."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_profile(name: str) -> DeviceProfile:
    """The profile called ``name``.

    Raises:
        DeviceError: there is none, with the nearest name; or a figure of it is missing, misspelt or impossible.
    """
    names = profile_names()
    if name not in names:
        raise DeviceError(unknown_name("device", name, names))
    return parse_profile(name, (_folder() / f"{name}.toml").read_bytes())


def parse_profile(name: str, toml: bytes) -> DeviceProfile:
    """The profile called ``name`` out of its file's bytes.

    Raises:
        DeviceError: a key or figure is missing, unknown or impossible.
    """
    try:
        profile = msgspec.toml.decode(toml, type=DeviceProfile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DeviceError(f"device profile {name!r}: {error}; compare it with rpi5-8gb.toml") from error
    problems = list(_contradictions(name, profile))
    if problems:
        raise DeviceError(f"device profile {name!r}: {'; '.join(problems)}; correct its figures")
    return profile


def _contradictions(name: str, profile: DeviceProfile) -> Iterator[str]:
    memory = profile.memory
    if profile.name != name:
        yield f"it calls itself {profile.name!r}"
    if profile.usable_bytes <= 0:
        yield f"the system keeps {memory.system_bytes.value:,.0f} of {memory.total_bytes.value:,.0f} bytes of memory"
    if memory.sustained_gbps and memory.sustained_gbps.value > memory.peak_gbps.value:
        yield f"memory sustains {memory.sustained_gbps.value} GB/s, more than its peak of {memory.peak_gbps.value}"


def _folder() -> Traversable:
    return resources.files("sprat.devices") / "profiles"
