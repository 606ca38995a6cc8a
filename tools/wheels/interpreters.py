"""The Python interpreters of this machine, for building and testing wheels."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["find_interpreter", "newer_interpreters"]


def find_interpreter(version: tuple[int, int]) -> Path:
    """A Python of ``version``, from PATH or from pyenv; raises ``FileNotFoundError`` with a remedy."""
    for candidate in _candidates(version):
        if _runs(candidate):
            return candidate
    name = f"python{version[0]}.{version[1]}"
    raise FileNotFoundError(
        f"{name} is missing, for which a wheel is built: install it from your system, by pyenv or from python.org"
    )


def newer_interpreters(version: tuple[int, int], newest: int = 15) -> list[Path]:
    """All Pythons 3.x from ``version`` on that are installed, to test a wheel of the stable ABI."""
    found = []
    for minor in range(version[1], newest + 1):
        try:
            found.append(find_interpreter((version[0], minor)))
        except FileNotFoundError:
            continue
    return found


def _candidates(version: tuple[int, int]) -> Iterator[Path]:
    name = f"python{version[0]}.{version[1]}"
    if on_path := shutil.which(name):
        yield Path(on_path)
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        yield from sorted(Path(root, "versions").glob(f"{version[0]}.{version[1]}.*/bin/{name}"), reverse=True)


def _runs(interpreter: Path) -> bool:
    """Whether it starts (pyenv's shims on PATH may not) and can create environments."""
    done = subprocess.run([interpreter, "-c", "import venv, ensurepip"], capture_output=True, check=False)
    return done.returncode == 0
