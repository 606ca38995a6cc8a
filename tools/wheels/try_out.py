"""Install a wheel as a user would, without a compiler, and run ``sprat demo`` from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pip

from wheels.debian import unpack

__all__ = ["Runner", "arm_runner", "run_demo", "venv_runner"]

LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1")
PI_5 = "cortex-a76"
OLDEST_GLIBC = 17  # 2.17: manylinux2014
DEMO_LIMIT_S = 3600.0  # under an emulator, on a loaded machine


@dataclass(frozen=True)
class ArmPython:
    """A Debian release for 64-bit ARM: its Python, the minor version of its glibc, and packages named by release."""

    release: str
    version: str
    glibc: int
    packages: tuple[str, ...]


# The release of Raspberry Pi OS 12 for cp311, that of Raspberry Pi OS 13 for abi3.
ARM_PYTHONS = {
    "cp311": ArmPython("bookworm", "3.11", 36, ("libssl3",)),
    "abi3": ArmPython("trixie", "3.13", 41, ("libssl3t64", "libzstd1")),
}


@dataclass(frozen=True)
class Runner:
    """A Python with its own packages, possibly of another CPU architecture."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    download_options: tuple[str, ...] = ()  # of pip download, if this machine's pip downloads

    def run(self, *arguments: str | Path, cwd: Path) -> str:
        """Run the interpreter and return what it printed; raises ``RuntimeError`` with the output if it fails."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SPRAT"))}
        done = subprocess.run(
            [*self.command, *arguments],
            env=environment | self.environment,
            cwd=cwd,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEMO_LIMIT_S,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(map(str, arguments))} failed:\n{done.stdout}")
        return done.stdout


def venv_runner(interpreter: Path, folder: Path) -> Runner:
    """A fresh virtual environment of one of this machine's Pythons."""
    subprocess.run([interpreter, "-m", "venv", "--clear", folder / "venv"], check=True)
    return Runner(interpreter.name, [str(folder / "venv/bin/python")])


def arm_runner(abi_tag: str, folder: Path) -> Runner:
    """Debian's Python for 64-bit ARM under qemu-user, with the CPU of a Raspberry Pi 5."""
    arm = ARM_PYTHONS[abi_tag]
    python = [f"python{arm.version}-minimal", f"libpython{arm.version}-minimal", f"libpython{arm.version}-stdlib"]
    root = unpack([*python, *LIBRARIES, *arm.packages], folder, architecture="arm64", release=arm.release)
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(Path(pip.__file__).parent, site / "pip")  # Debian's pip needs an installed system
    environment = {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    emulator = ["qemu-aarch64", "-cpu", PI_5, "-L", str(root)]
    return Runner(
        f"python{arm.version} of Debian {arm.release} for arm64 under qemu",
        [*emulator, str(root / f"usr/bin/python{arm.version}")],
        {**environment, "PIP_TARGET": str(site)},
        _download_options(arm),
    )


def run_demo(runner: Runner, wheel: Path, folder: Path, *, native: bool = True) -> None:
    """Install ``wheel`` with pip, binaries only, and run the demo; ``native``: whether the native core must load."""
    install = ["-m", "pip", "install", "--quiet", "--no-warn-script-location", "--only-binary", ":all:"]
    if runner.download_options:
        install += ["--no-index", "--find-links", str(_download(runner, wheel, folder / "packages"))]
    runner.run(*install, wheel, cwd=folder)
    doctor = json.loads(runner.run("-m", "sprat", "doctor", "--json", cwd=folder))
    if doctor["native_core"] != native:
        raise RuntimeError(f"{runner.name}: the native core of {wheel.name}: {doctor['native_missing_because']}")
    shutil.rmtree(folder / "demo", ignore_errors=True)
    print(runner.run("-m", "sprat", "demo", folder / "demo", cwd=folder), flush=True)


def _download_options(arm: ArmPython) -> tuple[str, ...]:
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(arm.glibc, OLDEST_GLIBC - 1, -1)]
    options = [option for platform in [*platforms, "manylinux2014_aarch64"] for option in ("--platform", platform)]
    return (*options, "--python-version", arm.version, "--only-binary", ":all:")


def _download(runner: Runner, wheel: Path, packages: Path) -> Path:
    """Download the dependencies of ``wheel`` with this machine's pip: TLS under an emulator is slow enough to time out.

    The runner's pip then selects among these files.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", *runner.download_options]
    subprocess.run([*command, "--dest", packages, wheel], check=True)
    return packages
