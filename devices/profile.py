"""What a device is, in figures that say where they come from. One device, one TOML file.

Profiles that come with sprat lie in ``devices/profiles/``; those of the user, which ``sprat devices probe --save``
writes, in ``$XDG_CONFIG_HOME/sprat/devices/``. A file names the device and lists its parts; every number is a table of
value, basis and source::

    name = "rpi5-8gb"
    title = "Raspberry Pi 5, 8 GB"
    soc = "Broadcom BCM2712"

    [memory]
    total_bytes = { value = 8_589_934_592, basis = "published", source = "product page: 8GB" }
    system_bytes = { value = 1_073_741_824, basis = "assumed", source = "a desktop that idles, and some air" }

:mod:`sprat.devices.parts` lists all keys. Unknown ones are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec

from sprat.devices.parts import Accelerator, Basis, Compute, Cores, Figure, Memory, Power, Storage, Thermal
from sprat.errors import DeviceError, unknown_name
from sprat.files import atomic_write, config_folder

__all__ = [
    "Accelerator",
    "Basis",
    "Compute",
    "Cores",
    "DeviceProfile",
    "Figure",
    "Memory",
    "Power",
    "Storage",
    "Thermal",
    "check_new_name",
    "contradictions",
    "load_profile",
    "load_profiles",
    "parse_profile",
    "profile_names",
    "save_profile",
    "user_folder",
]

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_SLOWEST_SHARE = (
    0.4  # of the fastest kind's speed: the middle cores of phones help (0.41), little ones do not (0.15 to 0.38)
)

# Ten times and more what exists: beyond it, somebody mixed up units.
_MOST = {
    "total_bytes": 2**44,
    "capacity_bytes": 2**50,
    "memory_bytes": 2**42,
    "clock_ghz": 20,
    "peak_gbps": 20_000,
    "sequential_mbps": 200_000,
    "int8_ops_per_cycle": 65_536,
    "f32_ops_per_cycle": 65_536,
    "load_watts": 10_000,
    "throttle_celsius": 150,
    "sustained_share": 1,
}


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One device."""

    name: str  # "rpi5-8gb", also the file's
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
        """RAM that the system leaves to a model."""
        return int(self.memory.total_bytes.value - self.memory.system_bytes.value)

    @property
    def n_cores(self) -> int:
        """Cores of all kinds."""
        return sum(cores.count for cores in self.cores)

    @property
    def fast_cores(self) -> tuple[Cores, ...]:
        """The kinds that are worth a thread: not much slower than the fastest."""

        def speed(cores: Cores) -> float:
            return (cores.int8_gops or cores.clock_ghz.value * cores.count) / cores.count

        fastest = max(map(speed, self.cores))
        return tuple(cores for cores in self.cores if speed(cores) >= _SLOWEST_SHARE * fastest)

    @property
    def n_threads(self) -> int:
        """Threads that a model should run with."""
        return sum(cores.count for cores in self.fast_cores)


def profile_names() -> list[str]:
    """All profiles: those that come with sprat, and the user's."""
    return sorted({*_shipped(), *_saved()})


def load_profiles(on_broken: Callable[[DeviceError], None]) -> list[DeviceProfile]:
    """All profiles that can be read: one broken file of the user's does not hide the other devices.

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
        DeviceError: there is none, with the nearest name; or a figure of it is missing, misspelt or impossible.
    """
    files = _saved() | _shipped()
    if name not in files:
        raise DeviceError(unknown_name("device", name, files))
    path = files[name]
    try:
        return parse_profile(name, path.read_bytes())
    except OSError as error:
        raise DeviceError(f"device profile {name!r}: {path} cannot be read ({error.strerror})") from error
    except DeviceError as error:
        raise DeviceError(f"{path}: {error}") from error


def parse_profile(name: str, toml: bytes) -> DeviceProfile:
    """The profile called ``name`` out of its file's bytes.

    Raises:
        DeviceError: a key or figure is missing, unknown or impossible.
    """
    try:
        profile = msgspec.toml.decode(toml, type=DeviceProfile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DeviceError(f"device profile {name!r}: {error}; compare it with rpi5-8gb.toml") from error
    _check(name, profile)
    return profile


def save_profile(profile: DeviceProfile) -> Path:
    """Write ``profile`` to the user's folder, replacing an older one of its name.

    Raises:
        DeviceError: the name is no plain one or belongs to a profile that comes with sprat, a figure is impossible,
            or the folder cannot be written.
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
    """Check that a profile of the user may be called ``name``.

    Raises:
        DeviceError: it is no plain name, or that of a profile that comes with sprat.
    """
    if not _NAME.fullmatch(name) or name in _shipped():
        raise DeviceError(
            f"device profile {name!r}: expected a name of small letters, digits and dashes that none of sprat's own "
            f"profiles has; for example 'my-{_plain(name)}'"
        )


def user_folder() -> Path:
    """Where the user's profiles lie; need not exist."""
    return config_folder() / "devices"


def _check(name: str, profile: DeviceProfile) -> None:
    problems = [f"it calls itself {profile.name!r}"] if profile.name != name else []
    problems += contradictions(profile)
    if problems:
        raise DeviceError(f"device profile {name!r}: {'; '.join(problems)}; correct its figures")


def _shipped() -> dict[str, Path]:
    return _profiles_in(Path(str(resources.files("sprat.devices") / "profiles")))


def _saved() -> dict[str, Path]:
    return _profiles_in(user_folder())


def _profiles_in(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob("*.toml")}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "device"


def contradictions(profile: DeviceProfile) -> list[str]:
    """Everything that is impossible in ``profile``, as clauses of one message."""
    alone = [*_out_of_range(profile)]
    return alone or [*_of_memory(profile), *_of_storage(profile.storage), *_of_cores_and_power(profile)]


def _out_of_range(profile: DeviceProfile) -> Iterator[str]:
    for path, figure in _figures(profile, ""):
        most = _MOST.get(path.rpartition(".")[2], math.inf)
        if not math.isfinite(figure.value) or figure.value > most:
            yield f"{path} is {figure.value:,.10g}, expected at most {most:,}"


def _of_memory(profile: DeviceProfile) -> Iterator[str]:
    memory = profile.memory
    if profile.usable_bytes <= 0:
        yield f"the system keeps {memory.system_bytes.value:,.0f} of {memory.total_bytes.value:,.0f} bytes of memory"
    yield from _not_over("memory sustains", memory.sustained_gbps, "GB/s", memory.peak_gbps, "its peak")
    yield from _not_over("one core reads", memory.one_core_gbps, "GB/s", memory.read_gbps, "all cores")
    yield from _not_over("the cache has", memory.cache_bytes, "bytes", memory.total_bytes, "the memory")


def _of_storage(media: tuple[Storage, ...]) -> Iterator[str]:
    for medium in media:
        for name, rate in (("4 KiB", medium.random_4kib_mbps), ("1 MiB", medium.random_1mib_mbps)):
            what = f"{medium.kind} reads {name} at random with"
            yield from _not_over(what, rate, "MB/s", medium.sequential_mbps, "in sequence")


def _of_cores_and_power(profile: DeviceProfile) -> Iterator[str]:
    if profile.power and profile.power.load_watts:
        yield from _not_over("it idles at", profile.power.idle_watts, "W", profile.power.load_watts, "under load")
    if profile.compute is None and not all(cores.int8_gops and cores.f32_gflops for cores in profile.cores):
        yield "its cores have no int8_ops_per_cycle or no f32_ops_per_cycle, and no compute was measured"


def _not_over(what: str, figure: Figure | None, unit: str, limit: Figure, of: str) -> Iterator[str]:
    if figure is not None and figure.value > limit.value:
        yield f"{what} {figure.value:,.10g} {unit}, more than {of} ({limit.value:,.10g})"


def _figures(part: object, path: str) -> Iterator[tuple[str, Figure]]:
    """Every figure of a profile under its dotted name."""
    if isinstance(part, Figure):
        yield path, part
    elif isinstance(part, tuple):
        for index, each in enumerate(part):
            yield from _figures(each, f"{path}[{index}]")
    elif isinstance(part, msgspec.Struct):
        for name in part.__struct_fields__:
            yield from _figures(getattr(part, name), f"{path}.{name}" if path else name)
