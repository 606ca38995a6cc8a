"""The wheels of a release: which C library, which processor, which Python."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ABIS", "TARGETS", "Abi", "Target"]

MANYLINUX = (2, 17)  # glibc of CentOS 7, Debian 8: older than any system that has Python 3.11
MUSLLINUX = (1, 2)  # Alpine 3.13
PLATFORM_TAG = re.compile(
    r"(?P<policy>many|musl)linux(?P<year>1|2010|2014)?(_(?P<major>\d+)_(?P<minor>\d+))?_(?P<processor>x86_64|aarch64)"
)


@dataclass(frozen=True)
class Target:
    """One processor with one C library."""

    processor: str
    libc: str  # "gnu" or "musl"

    @property
    def name(self) -> str:
        """As folder name: ``aarch64-gnu``."""
        return f"{self.processor}-{self.libc}"

    @property
    def zig_target(self) -> str:
        """What ``zig c++ --target`` takes; the version of glibc is part of it."""
        version = ".".join(map(str, MANYLINUX))
        return f"{self.processor}-linux-gnu.{version}" if self.libc == "gnu" else f"{self.processor}-linux-musl"

    def takes(self, platform_tag: str) -> bool:
        """Whether ``platform_tag`` is one of this processor and promises no newer C library than the one compiled for."""
        found = PLATFORM_TAG.fullmatch(platform_tag)
        if not found or found["processor"] != self.processor:
            return False
        if found["year"]:
            return self.libc == "gnu"  # manylinux2014 is another name of manylinux_2_17
        libc, newest = ("gnu", MANYLINUX) if found["policy"] == "many" else ("musl", MUSLLINUX)
        return libc == self.libc and (int(found["major"]), int(found["minor"])) <= newest


@dataclass(frozen=True)
class Abi:
    """One binary interface of Python: a wheel bears its tags, its module its suffix."""

    python_tag: str
    abi_tag: str
    python: tuple[int, int]  # the interpreter whose headers are compiled against

    def suffix(self, target: Target) -> str:
        """The end of the module's file name."""
        return ".abi3.so" if self.abi_tag == "abi3" else f".{self._soabi}-{target.processor}-linux-{target.libc}.so"

    @property
    def _soabi(self) -> str:
        return f"cpython-{self.abi_tag.removeprefix('cp')}"


# nanobind's stable ABI begins with 3.12. Raspberry Pi OS 12 has Python 3.11: a wheel of its own.
ABIS = (Abi("cp311", "cp311", (3, 11)), Abi("cp312", "abi3", (3, 12)))
TARGETS = tuple(Target(processor, libc) for libc in ("gnu",) for processor in ("x86_64", "aarch64"))
