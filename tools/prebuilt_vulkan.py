"""Makes a folder with a prebuilt llama.cpp for Vulkan that the installed llama-cpp-python can load, for tests.

`make .venv/.vulkan` runs it; by hand, with another folder:

python tools/prebuilt_vulkan.py /tmp/vulkan && SPRAT_TEST_VULKAN=/tmp/vulkan pytest -m slow tests/runtime/backends/gpu

The libraries come from npm (node-llama-cpp's package), whose llama.cpp is a little older than the one that
llama-cpp-python declares: a small library adds the functions that are missing, as traps. That is only sound while the
records of both have one layout, so the default parameters of both are compared. Needs ``npm``, ``nm`` and ``cc``, and
at run time a Vulkan driver (``mesa-vulkan-drivers`` has one in software).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@node-llama-cpp/linux-x64-vulkan@3.22.1"
_SHIM = "libllama_shim.so"
_DEFAULTS = """
from llama_cpp import llama_cpp as lib
for record in (lib.llama_model_default_params(), lib.llama_context_default_params()):
    print([(name, value) for name, _ in record._fields_ if isinstance(value := getattr(record, name), int | float)])
"""


def main(folder: Path) -> None:
    """Download, link, compare."""
    folder.mkdir(parents=True)
    _unpack(folder)
    library = next(folder.glob("libllama.*.so"))
    missing = sorted(_declared() - _exported(library))
    _link(folder, library, missing)
    if _defaults() != _defaults(folder):
        sys.exit(f"{PACKAGE}: its default parameters differ from llama-cpp-python's: another version is needed")
    sys.stdout.write(f"SPRAT_TEST_VULKAN={folder}  ({len(missing)} functions are missing in {library.name})\n")


def _unpack(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        packed = subprocess.run(["npm", "pack", PACKAGE], cwd=scratch, check=True, capture_output=True, text=True)
        with tarfile.open(Path(scratch) / packed.stdout.strip().splitlines()[-1]) as archive:
            archive.extractall(scratch, filter="data")
        for library in Path(scratch).glob("package/bins/*/*.so"):
            shutil.copy(library, folder)


def _declared() -> set[str]:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        sys.exit("llama-cpp-python is not installed; sprat doctor has the line")
    source = Path(spec.origin).with_name("llama_cpp.py").read_text(encoding="utf-8")
    return set(re.findall(r'@ctypes_function\(\s*"(\w+)"', source))


def _exported(library: Path) -> set[str]:
    listing = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True)
    return {line.split()[-1] for line in listing.stdout.splitlines()}


def _link(folder: Path, library: Path, missing: list[str]) -> None:
    traps = "\n".join(f"void {name}(void) {{ __builtin_trap(); }}" for name in missing)
    flags = [f"-Wl,-soname,{_SHIM}", "-Wl,--no-as-needed", f"-L{folder}", f"-l:{library.name}"]
    flags += ["-Wl,-rpath,$ORIGIN", "-Wl,--allow-shlib-undefined"]
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", folder / _SHIM, *flags]
    subprocess.run(command, check=True, input=traps, text=True)
    (folder / "libllama.so").symlink_to(_SHIM)


def _defaults(folder: Path | None = None) -> str:
    environment = os.environ | ({"LLAMA_CPP_LIB_PATH": str(folder)} if folder else {})
    command = [sys.executable, "-c", _DEFAULTS]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
