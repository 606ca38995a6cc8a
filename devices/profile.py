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

import os
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec

from sprat.devices.contradictions import contradictions
from sprat.devices.parts import Accelerator, Basis, Compute, Cores, Figure, Memory, Power, Storage, Thermal
from sprat.errors import DeviceError, unknown_name

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
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(msgspec.toml.encode(profile))
        partial.replace(path)
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
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "sprat" / "devices"


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
