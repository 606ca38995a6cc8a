"""A bundle: the folder that an export leaves and an engine loads, described by its ``manifest.json``.

::

    student-int4/
        manifest.json                     this record
        Student-26M-v1.0-Q4_0.gguf        one artifact per format
        tokenizer.json  config.json  …    what came with the checkpoint

The manifest names every file with its size and SHA-256. Opening a bundle checks names and sizes, which costs nothing;
:meth:`Bundle.check_hashes` reads every byte. A manifest may come from anywhere, so no name in it can leave the folder.
Bundles are written by :mod:`sprat.export.write.bundle`.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

import msgspec

from sprat.errors import BundleError
from sprat.files import file_sha256

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Artifact",
    "Bundle",
    "BundleFile",
    "Manifest",
    "Source",
    "TensorGroup",
    "read_manifest",
]

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1

_MAX_MANIFEST_BYTES = 1 << 24
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class BundleFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the folder; ``name`` is relative, with ``/`` between folders."""

    name: str
    size_bytes: _Count
    sha256: _Sha256


class Artifact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model in one runtime's format."""

    format: str  # "gguf"
    file: str  # the name of its main file
    plan: _Sha256  # of all that decides its bytes but the weights: same plan, same source, same file


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was exported."""

    name: str
    format: str  # "safetensors" or "gguf"
    hash: str
    quantized: bool  # the weights had lost precision before they came here


class TensorGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tensors of one role that got one format: ``ffn_down_exps`` in Q4_0."""

    role: str
    format: str
    wanted: str  # differs from ``format`` where rows could not be divided
    n_tensors: _Count
    n_weights: _Count
    size_bytes: _Count


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything known about a bundle."""

    schema_version: int = SCHEMA_VERSION
    name: str
    artifacts: tuple[Artifact, ...]
    files: tuple[BundleFile, ...]
    source: Source
    spec: dict[str, Any]  # of the model, to read and compare; the artifact itself is what runtimes believe
    recipe: str
    tensor_groups: tuple[TensorGroup, ...]
    device: str | None
    versions: dict[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose manifest was read, and whose files are there with the right sizes."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read the manifest of the folder ``path`` and compare it with what lies there.

        Raises:
            BundleError: no manifest, one that cannot be trusted, or files that are missing, of another size, or outside
                the folder; all of them are named.
        """
        path = Path(path)
        manifest = read_manifest(path)
        problems = [*_name_problems(manifest), *_artifact_problems(manifest)]
        if not problems:
            problems = [problem for file in manifest.files for problem in _file_problems(path, file)]
        _raise_all(path, problems, "copy the bundle again, or export it again")
        return cls(path, manifest)

    def artifact(self, format: str = "gguf") -> Path:
        """The main file of the artifact in ``format``.

        Raises:
            BundleError: the bundle holds no such artifact; the message says which ones it holds.
        """
        for artifact in self.manifest.artifacts:
            if artifact.format == format:
                return self.path / artifact.file
        held = ", ".join(artifact.format for artifact in self.manifest.artifacts)
        raise BundleError(f"{self.path}: holds no {format!r} artifact, only {held}; export it with --format {format}")

    def file(self, name: str) -> Path | None:
        """The bundle's file called ``name``, if it has one."""
        held = any(file.name == name for file in self.manifest.files)
        return self.path / name if held else None

    def check_hashes(self) -> None:
        """Read every file and compare its SHA-256.

        Raises:
            BundleError: the files that differ, all of them.
        """
        problems = [
            f"{file.name!r} has SHA-256 {found}, the manifest says {file.sha256}"
            for file in self.manifest.files
            if (found := file_sha256(self.path / file.name)) != file.sha256
        ]
        _raise_all(self.path, problems, "copy the bundle again")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of ``folder``, well-formed but not yet compared with the files.

    Raises:
        BundleError: there is none, or it is not one.
    """
    path = folder / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); expected a folder made by sprat export"
        ) from error
    if len(text) > _MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{path}: over {_MAX_MANIFEST_BYTES:,} bytes; no manifest is that long, export the bundle again"
        )
    try:
        version = msgspec.json.decode(text, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path}: schema version {version}, expected {SCHEMA_VERSION}; use the sprat that wrote it"
            )
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: not a manifest ({error}); export the bundle again") from error


class _Version(msgspec.Struct):
    """The one key that tells how to read the others."""

    schema_version: int


def _name_problems(manifest: Manifest) -> Iterator[str]:
    names = [file.name for file in manifest.files]
    for name in names:
        if reason := _unsafe(name):
            yield f"file name {name!r} {reason}"
    folded = Counter(unicodedata.normalize("NFC", name).casefold() for name in names)
    for name, count in folded.items():
        if count > 1:
            yield f"{count} files are called {name!r}, or would be on another file system"


def _unsafe(name: str) -> str:
    """Why ``name`` must not be joined to a folder, or nothing."""
    if not name.isprintable() or "\\" in name:
        return "holds a character that no file of a bundle has"
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "/".join(parts) != name:
        return "is not a plain relative path"
    return "is the manifest itself" if name == MANIFEST_NAME else ""


def _artifact_problems(manifest: Manifest) -> Iterator[str]:
    names = {file.name for file in manifest.files}
    if not manifest.artifacts:
        yield "there is no artifact"
    for artifact in manifest.artifacts:
        if artifact.file not in names:
            yield f"artifact {artifact.file!r} is not among the files"


def _file_problems(folder: Path, file: BundleFile) -> Iterator[str]:
    path = folder / file.name
    if not path.resolve().is_relative_to(folder.resolve()):
        yield f"{file.name!r} is a link that leaves the folder"
    elif not path.is_file():
        yield f"{file.name!r} is missing"
    elif path.stat().st_size != file.size_bytes:
        yield f"{file.name!r} has {path.stat().st_size} bytes, the manifest says {file.size_bytes}"


def _raise_all(path: Path, problems: Iterable[str], remedy: str) -> None:
    found = "; ".join(problems)
    if found:
        raise BundleError(f"{path}: {found}; {remedy}")
