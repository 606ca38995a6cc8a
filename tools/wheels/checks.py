"""Check a wheel against its name: tags, suffix of the module, and ELF machine."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from wheels.targets import Abi, Target

__all__ = ["ModuleFile", "check_pure_wheel", "check_wheel", "read_module"]

MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
LIBRARIES = re.compile(r"lib(c|m|pthread|dl|rt)\.so\.\d|ld-linux-.*")  # of glibc itself
# Segments are aligned to the page size: the kernel of Raspberry Pi 5 has pages of 16 KiB.
ALIGNMENT = {"x86_64": 4096, "aarch64": 16384}


class WheelError(ValueError):
    """A wheel that must not be published."""


@dataclass(frozen=True)
class ModuleFile:
    """ELF header of the native module."""

    machine: str
    libraries: tuple[str, ...]
    alignment: int  # bytes, minimum of all loaded segments


def check_wheel(wheel: Path, target: Target, abi: Abi) -> None:
    """Raise ``WheelError`` unless ``wheel`` has one module of ``abi`` for ``target``, and the right tags."""
    with zipfile.ZipFile(wheel) as archive:
        for platform_tag in _check_tags(wheel, archive, abi.python_tag, abi.abi_tag):
            if not target.takes(platform_tag):
                raise WheelError(f"{wheel.name}: platform {platform_tag}, but compiled for {target.zig_target}")
        (name,) = _modules(archive)
        _expect(wheel, "module", name, f"sprat/_core{abi.suffix(target)}")
        module = read_module(archive.read(name))
    _expect(wheel, "machine", module.machine, MACHINES[target.processor])
    if module.alignment < ALIGNMENT[target.processor]:
        raise WheelError(
            f"{wheel.name}: segments are aligned to {module.alignment} bytes, expected {ALIGNMENT[target.processor]}"
        )
    for library in module.libraries:
        if not LIBRARIES.fullmatch(library):
            raise WheelError(f"{wheel.name}: needs {library}, which is not part of glibc")


def check_pure_wheel(wheel: Path) -> None:
    """Raise ``WheelError`` unless ``wheel`` is for all platforms."""
    with zipfile.ZipFile(wheel) as archive:
        _expect(wheel, "platform", " ".join(_check_tags(wheel, archive, "py3", "none")), "any")
        if modules := _modules(archive):
            raise WheelError(f"{wheel.name}: has {modules[0]}, but its platform is any")


def read_module(elf: bytes) -> ModuleFile:
    """Read the header, the loaded segments and the libraries of an ELF file."""
    file = ELFFile(io.BytesIO(elf))
    alignments = [segment["p_align"] for segment in file.iter_segments("PT_LOAD")]
    dynamic = file.get_section_by_name(".dynamic")
    if not isinstance(dynamic, DynamicSection):
        raise WheelError("the module is not a shared library: it has no .dynamic section")
    return ModuleFile(
        machine=file["e_machine"],
        libraries=tuple(tag.needed for tag in dynamic.iter_tags("DT_NEEDED")),
        alignment=min(alignments),
    )


def _check_tags(wheel: Path, archive: zipfile.ZipFile, python_tag: str, abi_tag: str) -> list[str]:
    """Compare the tags in the file name with those in the metadata; returns the platforms."""
    *_, python, abi, platforms = wheel.stem.split("-")
    _expect(wheel, "tag in the file name", f"{python}-{abi}", f"{python_tag}-{abi_tag}")
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
    inside = re.findall(r"^Tag: (\S+)$", archive.read(name).decode(), re.MULTILINE)
    expected = [f"{python}-{abi}-{platform}" for platform in platforms.split(".")]
    _expect(wheel, "tags in the metadata", " ".join(sorted(inside)), " ".join(sorted(expected)))
    return platforms.split(".")


def _modules(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.endswith((".so", ".pyd", ".dylib"))]


def _expect(wheel: Path, what: str, found: str, expected: str) -> None:
    if found != expected:
        raise WheelError(f"{wheel.name}: {what} is {found}, expected {expected}")
