"""Writing a bundle so that it appears whole or not at all: built in ``OUT.partial``, renamed when it is on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from sprat.errors import BundleError, ExportError
from sprat.files import file_sha256, sync_folder
from sprat.runtime.files.bundle import MANIFEST_NAME, Bundle, BundleFile, Manifest, read_manifest

__all__ = ["BundleFolder", "existing_manifest"]


@dataclass(frozen=True, slots=True)
class BundleFolder:
    """A bundle under construction; what an interrupted run left in ``partial`` is still there."""

    out: Path
    partial: Path

    @classmethod
    def beside(cls, out: Path) -> Self:
        """The folder in which the bundle ``out`` will grow; nothing is made yet."""
        return cls(out, out.with_name(out.name + ".partial"))

    def make(self) -> None:
        """Make the folder, or find it again.

        Raises:
            ExportError: ``out`` is something that sprat did not make, or the folder cannot be made.
        """
        existing_manifest(self.out)
        with _plain_errors(self.partial):
            self.partial.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, data: bytes) -> BundleFile:
        """Write a small file.

        Raises:
            ExportError: it cannot be written.
        """
        path = self.partial / name
        with _plain_errors(path), path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return self.describe(name)

    def describe(self, name: str) -> BundleFile:
        """Size and SHA-256 of a file that lies in the folder."""
        path = self.partial / name
        return BundleFile(name=name, size_bytes=path.stat().st_size, sha256=file_sha256(path))

    def finish(self, manifest: Manifest) -> Bundle:
        """Write the manifest, put the folder in its place, and open it.

        A bundle that it replaces is moved aside first and deleted last, so that one of the two is whole at any moment.

        Raises:
            ExportError: the disk is full, or rights are missing.
        """
        self._remove_strangers({file.name for file in manifest.files})
        self.add(MANIFEST_NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        replaced = self.out.with_name(self.out.name + ".replaced")
        with _plain_errors(self.out):
            sync_folder(self.partial)
            if existing_manifest(self.out) is not None:
                self.out.replace(replaced)
            self.partial.replace(self.out)
            sync_folder(self.out.parent)
            shutil.rmtree(replaced, ignore_errors=True)
        return Bundle.open(self.out)

    def _remove_strangers(self, names: set[str]) -> None:
        """Delete journals, and what a run with another recipe left."""
        with _plain_errors(self.partial):
            for path in self.partial.iterdir():
                if path.name not in names:
                    path.unlink()


def existing_manifest(out: Path) -> Manifest | None:
    """The manifest of the bundle at ``out``, or ``None`` where nothing is but perhaps an empty folder.

    Raises:
        ExportError: something is there that sprat did not make; it is never touched.
    """
    if not os.path.lexists(out) or (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        return None
    try:
        return read_manifest(out)
    except BundleError as error:
        raise ExportError(f"{out}: exists and is no bundle of sprat's; choose another name, or remove it") from error


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}); choose a folder that can") from error
