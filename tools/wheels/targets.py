"""The wheels of a release by CPU architecture and Python version, all for glibc.

There is no musl wheel: `sprat demo` must run from every published wheel, and neither PyPI nor Debian has a Python
for musl.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ABIS", "GLIBC", "TARGETS", "Abi", "Target"]

GLIBC = (2, 17)  # of CentOS 7 and Debian 8: older than any system that has Python 3.11
PLATFORM_TAG = re.compile(r"manylinux(?P<name>2014|_(?P<major>\d+)_(?P<minor>\d+))_(?P<processor>\w+)")


@dataclass(frozen=True)
class Target:
    """One CPU architecture."""

    processor: str

    @property
    def zig_target(self) -> str:
        """The value of ``zig c++ --target``, with the glibc version."""
        return f"{self.processor}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"

    def takes(self, platform_tag: str) -> bool:
        """Whether ``platform_tag`` is of this architecture and needs no newer glibc than :data:`GLIBC`."""
        found = PLATFORM_TAG.fullmatch(platform_tag)
        if not found or found["processor"] != self.processor:
            return False
        return found["name"] == "2014" or (int(found["major"]), int(found["minor"])) <= GLIBC  # 2014 is 2.17


@dataclass(frozen=True)
class Abi:
    """One binary interface of Python: the tags of a wheel and the suffix of its module."""

    python_tag: str
    abi_tag: str
    python: tuple[int, int]  # version of the headers

    def suffix(self, target: Target) -> str:
        """The end of the module's file name."""
        if self.abi_tag == "abi3":
            return ".abi3.so"
        return f".cpython-{self.abi_tag.removeprefix('cp')}-{target.processor}-linux-gnu.so"


# nanobind supports the stable ABI from 3.12 on. Raspberry Pi OS 12 has Python 3.11, which needs another wheel.
ABIS = (Abi("cp311", "cp311", (3, 11)), Abi("cp312", "abi3", (3, 12)))
TARGETS = (Target("x86_64"), Target("aarch64"))
