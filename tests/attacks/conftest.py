"""The library of faults, which several tests preload."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The compiled shim."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler")
    path = tmp_path_factory.mktemp("shim") / "faulty_calls.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", path, Path(__file__).with_name("faulty_calls.c"), "-ldl"],
        check=True,
    )
    return path
