"""Write the SBOM and the SHA-256 sums of a release: ``python tools/release_files.py dist``.

The SBOM (CycloneDX, JSON) describes a fresh environment with the wheel: sprat, and the resolved versions of its
dependencies. Libraries that are compiled into the native module are added.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
COMPILED_IN = {
    "nanobind": "the binding of C++ to Python, in every compiled wheel",
    "ziglang": "libc++ and compiler-rt, linked statically into every compiled wheel",
}


def write_sbom(dist: Path) -> Path:
    """Install the wheel without native core in a fresh environment and write its SBOM; returns the file."""
    (wheel,) = dist.glob("*-py3-none-any.whl")
    name, release = wheel.name.split("-")[:2]
    sbom = dist / f"{name}-{release}.cdx.json"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder, "bin/python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", wheel], check=True)
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip", "setuptools"], check=True)
        described = subprocess.run(
            [
                sys.executable,
                "-m",
                "cyclonedx_py",
                "environment",
                "--pyproject",
                PYPROJECT,
                "--output-reproducible",
                python,
            ],
            check=True,
            capture_output=True,
        )
    bom = json.loads(described.stdout)
    add_compiled_in(bom, {package: version(package) for package in COMPILED_IN})
    sbom.write_text(json.dumps(bom, indent=2) + "\n")
    return sbom


def add_compiled_in(bom: dict[str, Any], versions: dict[str, str]) -> None:
    """Add the packages that the native module contains as components, and let the main component depend on them."""
    main = bom["metadata"]["component"]["bom-ref"]
    depends_on = next(entry for entry in bom["dependencies"] if entry["ref"] == main)
    for package, release in versions.items():
        reference = f"{package}=={release}"
        bom["components"].append(
            {
                "type": "library",
                "bom-ref": reference,
                "name": package,
                "version": release,
                "description": COMPILED_IN[package],
                "purl": f"pkg:pypi/{package}@{release}",
            }
        )
        bom["dependencies"].append({"ref": reference})
        depends_on.setdefault("dependsOn", []).append(reference)


def write_sums(dist: Path) -> Path:
    """``SHA256SUMS`` over all other files of ``dist``, for ``sha256sum --check``; returns the file."""
    sums = dist / "SHA256SUMS"
    files = sorted(file for file in dist.iterdir() if file != sums)
    sums.write_text("".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files))
    return sums


def main() -> int:
    """Write both and print the sums."""
    dist = Path(sys.argv[1])
    print(write_sbom(dist))
    print(write_sums(dist).read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
