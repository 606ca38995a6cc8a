"""Device profiles: one TOML file per device, each value with its basis and source.

sprat's own profiles are in ``devices/profiles/``; the user's, which ``sprat devices probe --save`` writes, in
``$XDG_CONFIG_HOME/sprat/devices/``. A file names the device and lists its parts; every value is a table of value, basis
and source::

    name = "rpi5-8gb"
    title = "Raspberry Pi 5, 8 GB"
    soc = "Broadcom BCM2712"

    [memory]
    total_bytes = { value = 8_589_934_592, basis = "published", source = "product page: 8GB" }
    system_bytes = { value = 1_073_741_824, basis = "assumed", source = "idle OS, headroom" }

:mod:`sprat.devices.parts` has all keys. Unknown keys are errors.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec

from sprat.devices.parts import Accelerator, Basis, Compute, Cores, Memory, Power, Sourced, Storage, Thermal
from sprat.errors import DeviceError, unknown_name
from sprat.files import DocumentError, atomic_write, config_folder, parse_toml, read_input

__all__ = [
    "MIN_CORE_SPEED",
    "Accelerator",
    "Basis",
    "Compute",
    "Cores",
    "DeviceProfile",
    "Memory",
    "Power",
    "Sourced",
    "Storage",
    "Thermal",
    "check_new_name",
    "contradictions",
    "find_profile",
    "load_profile",
    "load_profiles",
    "parse_profile",
    "profile_names",
    "save_profile",
    "user_folder",
]

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_SUFFIX = ".toml"
# A core this slow, relative to the fastest, gets no thread: middle cores of phones (0.41) help, little ones (0.15 to
# 0.38) do not.
MIN_CORE_SPEED = 0.4

# At least ten times what exists: a larger value has the wrong unit.
_MAX = {
    "total_bytes": 2**44,
    "capacity_bytes": 2**50,
    "memory_bytes": 2**42,
    "clock_ghz": 20,
    "peak_gbps": 20_000,
    "bus_gbps": 1_000,
    "layer_us": 100_000,
    "sequential_mbps": 200_000,
    "int8_ops_per_cycle": 65_536,
    "f32_ops_per_cycle": 65_536,
    "load_watts": 10_000,
    "throttle_celsius": 150,
    "sustained_share": 1,
}


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One device."""

    name: str  # "rpi5-8gb", also the name of the file
    title: str
    soc: str
    cores: Annotated[tuple[Cores, ...], msgspec.Meta(min_length=1)]
    memory: Memory
    storage: Annotated[tuple[Storage, ...], msgspec.Meta(min_length=1)]
    compute: Compute | None = None
    accelerator: Accelerator | None = None
    power: Power | None = None
    thermal: Thermal | None = None

    @property
    def usable_bytes(self) -> int:
        """RAM that a model can use: all of it minus what the system needs."""
        return int(self.memory.total_bytes.value - self.memory.system_bytes.value)

    @property
    def n_cores(self) -> int:
        """Cores of all kinds."""
        return sum(cores.count for cores in self.cores)

    @property
    def fast_cores(self) -> tuple[Cores, ...]:
        """The kinds of cores that get threads: not much slower than the fastest kind."""

        def speed(cores: Cores) -> float:
            return (cores.int8_gops or cores.clock_ghz.value * cores.count) / cores.count

        fastest = max(map(speed, self.cores))
        return tuple(cores for cores in self.cores if speed(cores) >= MIN_CORE_SPEED * fastest)

    @property
    def n_threads(self) -> int:
        """Threads to run a model with: one per fast core."""
        return sum(cores.count for cores in self.fast_cores)


def profile_names() -> list[str]:
    """Names of all profiles: sprat's own and the user's."""
    return sorted({*_shipped(), *_saved()})


def load_profiles(on_broken: Callable[[DeviceError], None]) -> list[DeviceProfile]:
    """All profiles that can be read, so that one broken file of the user does not hide the others.

    Args:
        on_broken: called with the error of each profile that is left out.
    """
    found = []
    for name in profile_names():
        try:
            found.append(load_profile(name))
        except DeviceError as error:
            on_broken(error)
    return found


def load_profile(name: str) -> DeviceProfile:
    """The profile called ``name``.

    Raises:
        DeviceError: there is no such profile (the message has the nearest names), or a value is missing, misspelt or
            impossible.
    """
    files = _saved() | _shipped()
    if name not in files:
        raise DeviceError(unknown_name("device", name, files, _names_by_title()))
    path = files[name]
    try:
        return parse_profile(name, read_input(path))
    except OSError as error:
        raise DeviceError(f"device profile {name!r}: {path} cannot be read ({error.strerror})") from error
    except DeviceError as error:
        raise DeviceError(f"{path}: {error}") from error


def find_profile(device: str | os.PathLike[str]) -> DeviceProfile:
    """The profile that a user names: a name of :func:`profile_names`, or the path of a TOML file (``./friend.toml``).

    Raises:
        DeviceError: as :func:`load_profile`; or there is no such file, or it is not a profile.
    """
    if not isinstance(device, str | os.PathLike):
        raise DeviceError(f"device is {device!r}, expected the name of a profile (see `sprat devices`) or a TOML file")
    path = Path(device)
    if not isinstance(device, os.PathLike) and path.suffix != _SUFFIX:
        return load_profile(device)
    if not path.is_file():
        raise DeviceError(f"{path}: no such file; expected a device profile, see docs/device-profiles.md")
    try:
        return parse_profile(None, read_input(path))
    except OSError as error:
        raise DeviceError(f"{path}: cannot be read ({error.strerror})") from error
    except DeviceError as error:
        raise DeviceError(f"{path}: {error}") from error


def parse_profile(name: str | None, toml: bytes) -> DeviceProfile:
    """The profile called ``name`` from its file's bytes; any name where it is ``None``.

    Raises:
        DeviceError: a key is missing or unknown, or a value is impossible.
    """
    subject = "device profile" if name is None else f"device profile {name!r}"
    try:
        profile: DeviceProfile = parse_toml(toml, DeviceProfile)
    except DocumentError as error:
        raise DeviceError(f"{subject}: {error}; compare it with rpi5-8gb.toml") from error
    _check(profile.name if name is None else name, profile)
    return profile


def save_profile(profile: DeviceProfile) -> Path:
    """Write ``profile`` to the user's folder, replacing one of the same name.

    Raises:
        DeviceError: the name has other characters or is one of sprat's own, a value is impossible, or the folder
            cannot be written.
    """
    check_new_name(profile.name)
    _check(profile.name, profile)
    path = user_folder() / f"{profile.name}.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, msgspec.toml.encode(profile))
    except OSError as error:
        raise DeviceError(f"device profile {profile.name!r}: {path} cannot be written ({error.strerror})") from error
    return path


def check_new_name(name: str) -> None:
    """Check that the user may save a profile under ``name``.

    Raises:
        DeviceError: the name has other characters, or is one of sprat's own profiles.
    """
    if not _NAME.fullmatch(name) or name in _shipped():
        raise DeviceError(
            f"device profile {name!r}: expected lower-case letters, digits and dashes, and no name of sprat's own "
            f"profiles; for example 'my-{_plain(name)}'"
        )


def user_folder() -> Path:
    """Folder of the user's profiles; it may not exist."""
    return config_folder() / "devices"


def _check(name: str, profile: DeviceProfile) -> None:
    problems = [f"its name key is {profile.name!r}"] if profile.name != name else []
    problems += contradictions(profile)
    if problems:
        raise DeviceError(f"device profile {name!r}: {'; '.join(problems)}; correct the file")


def _shipped() -> dict[str, Path]:
    return _profiles_in(Path(str(resources.files("sprat.devices") / "profiles")))


def _saved() -> dict[str, Path]:
    return _profiles_in(user_folder())


def _profiles_in(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob(f"*{_SUFFIX}")}


def _names_by_title() -> dict[str, str]:
    """Title and chip of every profile that can be read: what users call their device."""
    profiles = load_profiles(lambda _broken: None)  # the message is about another name
    return {f"{profile.title} {profile.soc}": profile.name for profile in profiles}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "device"


def contradictions(profile: DeviceProfile) -> list[str]:
    """Values of ``profile`` that are impossible or contradict each other, as clauses of one message."""
    out_of_range = [*_out_of_range(profile)]
    return out_of_range or [*_of_memory(profile), *_of_storage(profile.storage), *_of_cores_and_power(profile)]


def _out_of_range(profile: DeviceProfile) -> Iterator[str]:
    for path, found in _values(profile, ""):
        limit = _MAX.get(path.rpartition(".")[2], math.inf)
        if not math.isfinite(found.value) or found.value > limit:
            yield f"{path} is {found.value:,.10g}, expected at most {limit:,}"


def _of_memory(profile: DeviceProfile) -> Iterator[str]:
    memory = profile.memory
    if profile.usable_bytes <= 0:
        yield f"system_bytes is {memory.system_bytes.value:,.0f}, of {memory.total_bytes.value:,.0f} bytes in total"
    yield from _not_over("sustained_gbps is", memory.sustained_gbps, "GB/s", memory.peak_gbps, "peak_gbps")
    yield from _not_over("one_core_gbps is", memory.one_core_gbps, "GB/s", memory.read_gbps, "all cores read")
    yield from _not_over("cache_bytes is", memory.cache_bytes, "bytes", memory.total_bytes, "total_bytes")


def _of_storage(devices: tuple[Storage, ...]) -> Iterator[str]:
    for storage in devices:
        for name, rate in (("4kib", storage.random_4kib_mbps), ("1mib", storage.random_1mib_mbps)):
            what = f"{storage.kind}: random_{name}_mbps is"
            yield from _not_over(what, rate, "MB/s", storage.sequential_mbps, "sequential_mbps")


def _of_cores_and_power(profile: DeviceProfile) -> Iterator[str]:
    if profile.power and profile.power.load_watts:
        yield from _not_over("idle_watts is", profile.power.idle_watts, "W", profile.power.load_watts, "load_watts")
    if profile.compute is None and not all(cores.int8_gops and cores.f32_gflops for cores in profile.cores):
        yield "cores without int8_ops_per_cycle or f32_ops_per_cycle, and no [compute] table"


def _not_over(what: str, found: Sourced | None, unit: str, limit: Sourced, of: str) -> Iterator[str]:
    if found is not None and found.value > limit.value:
        yield f"{what} {found.value:,.10g} {unit}, more than {of} ({limit.value:,.10g})"


def _values(part: object, path: str) -> Iterator[tuple[str, Sourced]]:
    """Every sourced value of a profile with its dotted name."""
    if isinstance(part, Sourced):
        yield path, part
    elif isinstance(part, tuple):
        for index, each in enumerate(part):
            yield from _values(each, f"{path}[{index}]")
    elif isinstance(part, msgspec.Struct):
        for name in part.__struct_fields__:
            yield from _values(getattr(part, name), f"{path}.{name}" if path else name)
