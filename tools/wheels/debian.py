"""Packages of another Debian release or architecture, unpacked into a folder without installing them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["unpack"]

SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources")


def unpack(packages: Sequence[str], folder: Path, *, architecture: str, release: str) -> Path:
    """Unpack ``packages`` of Debian ``release`` to ``folder/root`` and return it; needs apt-get and dpkg-deb.

    apt keeps its lists in ``folder`` and uses the mirrors of this machine.
    """
    root = folder / "root"
    for made in ("root", "lists/partial", "cache/archives/partial", "debs", "sources"):
        (folder / made).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "apt.conf").write_text(_configuration(folder, architecture))
    _copy_sources(folder / "sources", release)
    environment = {**os.environ, "APT_CONFIG": str(folder / "apt.conf")}
    for command in (["update", "-qq"], ["download", "-qq", *packages]):
        subprocess.run(["apt-get", *command], env=environment, cwd=folder / "debs", check=True, capture_output=True)
    for package in sorted((folder / "debs").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    if not (root / "lib").exists():  # newer releases have only /usr/lib; the path of the loader is /lib
        (root / "lib").symlink_to("usr/lib")
    return root


def _configuration(folder: Path, architecture: str) -> str:
    options = {
        "APT::Architecture": architecture,
        "Dir::State::Lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources/none",
        "Dir::Etc::sourceparts": folder / "sources",
    }
    lines = [f'{key} "{value}";' for key, value in options.items()]
    return "\n".join([*lines, f'APT::Architectures {{"{architecture}";}};'])


def _copy_sources(folder: Path, release: str) -> None:
    """This machine's Debian mirrors, with ``release`` in place of its own."""
    own = _own_release()
    for source in map(Path, SOURCES):
        if source.exists() and (text := source.read_text()).strip():
            suffix = ".sources" if source.suffix == ".sources" else ".list"
            (folder / f"debian{suffix}").write_text(text.replace(own, release))


def _own_release() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise FileNotFoundError("/etc/os-release has no VERSION_CODENAME: Debian is needed")
