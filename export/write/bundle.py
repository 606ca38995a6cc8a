"""Write a bundle that appears complete or not at all: built in ``OUT.partial/bundle``, renamed when it is on disk.

One process at a time writes the bundle ``OUT``: it holds the lock of ``OUT.partial``
(:mod:`sprat.export.write.own_folder`) from the first file to the rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Self

import msgspec

from sprat.errors import BundleError, ExportError
from sprat.export.write.errors import export_errors
from sprat.export.write.own_folder import OwnFolder, partial_folder
from sprat.export.write.plain_files import delete_all, open_folder, write_new
from sprat.export.write.publish import replace_folder
from sprat.files import sync_folder
from sprat.runtime.files.bundle import EDITABLE_FILES, MANIFEST_NAME, Bundle, BundleFile, Manifest, read_manifest
from sprat.runtime.files.integrity.manifest_seal import UNSEALED, seal

__all__ = ["BundleFolder", "existing_manifest", "files_folder", "remove_leftovers"]

_FILES, _REPLACED = "bundle", "replaced"


def files_folder(out: Path) -> Path:
    """The folder in which the files of the bundle ``out`` are written; it need not exist."""
    return partial_folder(out) / _FILES


class BundleFolder:
    """A bundle under construction, locked until the ``with`` block ends; what was written stays for the next run."""

    def __init__(self, out: Path, own: OwnFolder, files: int) -> None:
        self.out, self._own, self._files = out, own, files

    @classmethod
    def lock(cls, out: Path) -> Self:
        """Create the folder, or use the one of an interrupted run.

        A bundle that an interrupted run had renamed, and did not replace, is put back first.

        Raises:
            ExportError: ``out`` exists and is not a bundle, ``OUT.partial`` is not sprat's or in use by another
                process, or a folder cannot be created.
        """
        existing_manifest(out)
        own = OwnFolder.lock(partial_folder(out))
        try:
            _recover(out, own)
            with export_errors(own.path):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(_FILES, dir_fd=own.descriptor)
                return cls(out, own, open_folder(_FILES, own.descriptor))
        except BaseException:
            own.close()
            raise

    @property
    def path(self) -> Path:
        """Folder in which the files are written."""
        return files_folder(self.out)

    def add(self, name: str, data: bytes) -> BundleFile:
        """Write a small file and sync it to disk.

        Raises:
            ExportError: it cannot be written.
        """
        with export_errors(self.path / name):
            write_new(self._files, name, data)
        return BundleFile(name=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def finish(self, manifest: Manifest, check: Callable[[Path], None] = lambda _: None) -> Bundle:
        """Write the manifest, rename the folder to its final name, and open the bundle.

        A bundle that it replaces is deleted last, so that one of the two is complete at any moment.

        Args:
            manifest: lists all files but :data:`EDITABLE_FILES`; others are deleted.
            check: called with the complete folder before it is renamed; when it raises, nothing is published and the
                files are deleted.

        Raises:
            ExportError: the disk is full, or permissions are missing.
        """
        names = {file.name for file in manifest.files}
        with export_errors(self.path):
            delete_all(self._files, keep=names | set(EDITABLE_FILES))
        unsealed = msgspec.structs.replace(manifest, manifest_sha256=UNSEALED)
        self.add(MANIFEST_NAME, seal(msgspec.json.format(msgspec.json.encode(unsealed), indent=2) + b"\n"))
        with export_errors(self.path):
            for folder in {PurePosixPath(name).parent for name in names}:
                sync_folder(self.path / folder)
        try:
            check(self.path)
        except BaseException:
            self._own.remove()
            raise
        self._publish()
        return Bundle.open(self.out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the folder was removed, or will be taken over by the next run
            if not os.listdir(self._files):  # noqa: PTH208 - of a descriptor
                self._own.remove()  # nothing to continue
        os.close(self._files)
        self._own.close()

    def _publish(self) -> None:
        replaced = self._own.path / _REPLACED
        with export_errors(self.out):
            if existing_manifest(self.out) is not None:
                replace_folder(self.path, self.out, replaced)
            else:
                self.path.replace(self.out)
                sync_folder(self.out.parent)
        self._own.remove()


def remove_leftovers(out: Path) -> None:
    """Delete what an export that was killed after its last rename left.

    Unfinished work of another one is kept, and so is a folder of someone else or of an export that runs now.
    """
    partial = partial_folder(out)
    unfinished = (partial / _FILES).exists() and not (partial / _FILES / MANIFEST_NAME).exists()
    if not os.path.lexists(partial) or unfinished:
        return
    try:
        own = OwnFolder.lock(partial)
    except ExportError:
        return  # another's folder, or an export that runs now
    own.remove()
    own.close()


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


def _recover(out: Path, own: OwnFolder) -> None:
    """Put back a bundle that an interrupted run renamed and did not replace; delete one that it did."""
    replaced = own.path / _REPLACED
    if not os.path.lexists(replaced):
        return
    if not os.path.lexists(out) and _is_bundle(replaced):
        with export_errors(out):
            replaced.replace(out)
            sync_folder(out.parent)
    elif replaced.is_symlink():
        replaced.unlink()
    else:
        shutil.rmtree(replaced, ignore_errors=True)


def _is_bundle(path: Path) -> bool:
    try:
        Bundle.open(path)
    except BundleError:
        return False
    return True
