"""Install a wheel as a user would, without a compiler, and run ``sprat demo`` from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pip

from wheels.debian import unpack

__all__ = ["Runner", "arm_runner", "run_demo", "venv_runner"]

# Debian's Pythons for 64-bit ARM: the release of Raspberry Pi OS 12 for cp311, that of Raspberry Pi OS 13 for abi3.
ARM_PYTHONS = {"cp311": ("bookworm", "3.11", ["libssl3"]), "abi3": ("trixie", "3.13", ["libssl3t64", "libzstd1"])}
LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1")
PI_5 = "cortex-a76"
DEMO_LIMIT_S = 3600.0  # under an emulator and beside other work


@dataclass(frozen=True)
class Runner:
    """A Python with a folder of packages of its own, perhaps of another processor."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path, cwd: Path) -> str:
        """Run the interpreter and return what it printed; its errors raise ``CalledProcessError`` with their text."""
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
    """Debian's Python for 64-bit ARM under qemu-user, as the processor of a Raspberry Pi 5."""
    release, version, ssl = ARM_PYTHONS[abi_tag]
    python = [f"python{version}-minimal", f"libpython{version}-minimal", f"libpython{version}-stdlib"]
    root = unpack([*python, *LIBRARIES, *ssl], folder, architecture="arm64", release=release)
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(Path(pip.__file__).parent, site / "pip")  # Debian's own pip wants a system around it
    environment = {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    emulator = ["qemu-aarch64", "-cpu", PI_5, "-L", str(root)]
    return Runner(
        f"python{version} of Debian {release} for arm64 under qemu",
        [*emulator, str(root / f"usr/bin/python{version}")],
        {**environment, "PIP_TARGET": str(site), "PIP_UPGRADE": "0"},
    )


def run_demo(runner: Runner, wheel: Path, folder: Path, *, native: bool = True) -> None:
    """Install ``wheel`` with pip, binaries only, and run the demo; ``native``: whether the native core must load."""
    install = ("-m", "pip", "install", "--quiet", "--no-warn-script-location", "--only-binary", ":all:", wheel)
    runner.run(*install, cwd=folder)
    doctor = json.loads(runner.run("-m", "sprat", "doctor", "--json", cwd=folder))
    if doctor["native_core"] != native:
        raise RuntimeError(f"{runner.name}: the native core of {wheel.name}: {doctor['native_missing_because']}")
    shutil.rmtree(folder / "demo", ignore_errors=True)
    print(runner.run("-m", "sprat", "demo", folder / "demo", cwd=folder), flush=True)
