"""Write a bundle that appears complete or not at all: built in ``OUT.partial``, renamed when it is on disk."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from sprat.errors import BundleError, ExportError
from sprat.export.write.errors import export_errors
from sprat.files import file_sha256, sync_folder
from sprat.runtime.files.bundle import MANIFEST_NAME, Bundle, BundleFile, Manifest, read_manifest
from sprat.runtime.files.manifest_seal import UNSEALED, seal

__all__ = ["BundleFolder", "existing_manifest"]


@dataclass(frozen=True, slots=True)
class BundleFolder:
    """A bundle under construction; ``partial`` keeps the files of an interrupted run."""

    out: Path
    partial: Path

    @classmethod
    def beside(cls, out: Path) -> Self:
        """The folder in which the bundle ``out`` is built; nothing is created yet."""
        return cls(out, out.with_name(out.name + ".partial"))

    def make(self) -> None:
        """Create the folder, or use the one of an interrupted run.

        Raises:
            ExportError: ``out`` exists and is not a bundle, or the folder cannot be created.
        """
        existing_manifest(self.out)
        with export_errors(self.partial):
            self.partial.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, data: bytes) -> BundleFile:
        """Write a small file and sync it to disk.

        Raises:
            ExportError: it cannot be written.
        """
        path = self.partial / name
        with export_errors(path):
            path.parent.mkdir(exist_ok=True)
        with export_errors(path), path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return self.describe(name)

    def describe(self, name: str) -> BundleFile:
        """Size and SHA-256 of a file in the folder."""
        path = self.partial / name
        return BundleFile(name=name, size_bytes=path.stat().st_size, sha256=file_sha256(path))

    def finish(self, manifest: Manifest) -> Bundle:
        """Write the manifest, rename the folder to its final name, and open the bundle.

        A bundle that it replaces is renamed first and deleted last, so that one of the two is complete at any moment.

        Raises:
            ExportError: the disk is full, or permissions are missing.
        """
        self._remove_others({file.name for file in manifest.files})
        unsealed = msgspec.structs.replace(manifest, manifest_sha256=UNSEALED)
        self.add(MANIFEST_NAME, seal(msgspec.json.format(msgspec.json.encode(unsealed), indent=2) + b"\n"))
        replaced = self.out.with_name(self.out.name + ".replaced")
        with export_errors(self.out):
            for folder in {(self.partial / file.name).parent for file in manifest.files}:
                sync_folder(folder)
            if existing_manifest(self.out) is not None:
                self.out.replace(replaced)
            self.partial.replace(self.out)
            sync_folder(self.out.parent)
            shutil.rmtree(replaced, ignore_errors=True)
        return Bundle.open(self.out)

    def _remove_others(self, names: set[str]) -> None:
        """Delete all files but ``names``: journals, and files of an interrupted run with another recipe."""
        with export_errors(self.partial):
            for path in self.partial.rglob("*"):
                if path.is_file() and path.relative_to(self.partial).as_posix() not in names:
                    path.unlink()


def existing_manifest(out: Path) -> Manifest | None:
    """The manifest of the bundle at ``out``; ``None`` when ``out`` does not exist or is an empty folder.

    Raises:
        ExportError: ``out`` exists and is not a bundle; it is left as it is.
    """
    if not os.path.lexists(out) or (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        return None
    try:
        return read_manifest(out)
    except BundleError as error:
        raise ExportError(f"{out}: exists and is not a sprat bundle; choose another name, or remove it") from error
