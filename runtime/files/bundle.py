"""A bundle: the folder that ``sprat export`` writes and an engine loads, described by its ``manifest.json``.

::

    student-int4/
        manifest.json                     :class:`Manifest`
        Student-26M-v1.0-Q4_0.gguf        one artifact per format
        tokenizer.json  config.json  …    files of the checkpoint

The manifest lists every file with its size and SHA-256, and its own; the model card and the Modelfile, which readers
may edit, are not in it. Opening a bundle checks names and sizes; :meth:`Bundle.check` reads every byte. A manifest is
untrusted: file names that leave the folder are rejected. :mod:`sprat.export.write.bundle` writes bundles.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

import msgspec

from sprat.errors import BundleError
from sprat.files import DocumentError, parse_json, read_input
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.files.integrity.bundle_check import hash_problems, unlisted_files
from sprat.runtime.files.integrity.manifest_seal import is_sealed, seal_problem
from sprat.runtime.files.shape_checks import summarize

__all__ = [
    "EDITABLE_FILES",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Artifact",
    "Bundle",
    "BundleFile",
    "Manifest",
    "MergedAdapter",
    "QualityReport",
    "QualityStep",
    "Source",
    "TensorGroup",
    "has_manifest",
    "manifest_text",
    "read_manifest",
]

MANIFEST_NAME = "manifest.json"
EDITABLE_FILES = ("Modelfile", "README.md")
"""Files of a bundle that its readers may edit, so that the manifest does not list them."""

SCHEMA_VERSION = 1

_MAX_MANIFEST_BYTES = 1 << 24
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class BundleFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the bundle; ``name`` is a relative path with ``/`` as separator."""

    name: str
    size_bytes: _Count
    sha256: _Sha256
    tensor_digests: str | msgspec.UnsetType = msgspec.UNSET  # of a GGUF; see integrity/tensor_digests.py


class Artifact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model in one format."""

    format: str  # "gguf" or "onnx"
    file: str  # name of the main file
    layout_digest: _Sha256 = msgspec.field(name="plan")  # of everything but the weights that decides the file's bytes
    requires: str | msgspec.UnsetType = msgspec.UNSET  # what a runtime must have: "onnxruntime >= 1.22"


class MergedAdapter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LoRA adapter that the export merged into the weights."""

    name: str  # of its folder
    scale: float
    sha256: _Sha256  # of its weights


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The source of the export."""

    name: str
    format: str  # "safetensors" or "gguf"
    hash: str
    quantized: bool  # whether the source's weights were quantized already
    adapters: tuple[MergedAdapter, ...] = ()
    ignored_config_fields: tuple[str, ...] = ()  # unknown fields of config.json that the user declared harmless


class TensorGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tensors of one role and format: ``ffn_down_exps`` in Q4_0."""

    role: str
    format: str
    wanted: str  # the recipe's format; differs from ``format`` when that is a fallback
    n_tensors: _Count
    n_weights: _Count
    size_bytes: _Count


class QualityStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step of a calibrated export, compared with the source on the evaluation text."""

    name: str
    kld: float  # mean KL divergence in nats
    kld_error: float  # its standard error
    same_top: float  # share of tokens with the source's top token
    taken: bool  # whether the file has it: it pays beyond two standard errors of the paired difference


class QualityReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Formats and codes of a calibrated export, and how they were chosen."""

    level: str
    digest: _Sha256  # of calibration text, formats and settings
    calibration_tokens: _Count
    rounding: str  # "search", "feedback" or "descent"
    expected_kld: float | None  # sum of the tensors' costs; None without a measurement
    steps: tuple[QualityStep, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Lines of text: what was done, and every step with whether it was taken."""
        text = f"quality {self.level}: formats allocated, rounding by {self.rounding}"
        if self.calibration_tokens:
            text += f", calibrated with {self.calibration_tokens:,} tokens"
        steps = [
            f"{step.name}: KLD {step.kld:.5f} ± {step.kld_error:.5f}, same top token {step.same_top:.1%}, "
            f"{'taken' if step.taken else 'refused: does not pay beyond two standard errors'}"
            for step in self.steps
        ]
        return [text, *steps, *self.notes]


class PruningReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Routed experts that an export kept, and the cost of leaving out the others, before quantization."""

    digest: _Sha256  # of source, text and share
    calibration_tokens: _Count
    n_experts: _Count  # of each layer of the source
    experts: dict[str, tuple[_Count, ...]]  # MoE layer -> the source's ids of those that were kept
    n_weights: _Count
    n_weights_before: _Count
    contribution: float  # of the kept experts: share of router weight times norm of the output, over the text
    n_scored: _Count  # tokens of the comparison with the source
    kld: float  # mean KL divergence in nats
    kld_error: float  # its standard error
    same_top: float  # share of tokens with the source's top token

    def lines(self) -> list[str]:
        """The pruning in words: what was removed, and its cost."""
        n_kept = len(next(iter(self.experts.values())))
        return [
            f"pruned: {n_kept} of {self.n_experts} experts per layer kept, by {self.calibration_tokens:,} tokens: "
            f"{self.n_weights / 1e6:,.1f}M of {self.n_weights_before / 1e6:,.1f}M weights, "
            f"{self.contribution:.1%} of what the experts add",
            f"cost of pruning, before quantization: KLD {self.kld:.5f} ± {self.kld_error:.5f}, same top token "
            f"{self.same_top:.1%} on {self.n_scored:,} tokens",
        ]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of ``manifest.json``."""

    schema_version: int = SCHEMA_VERSION
    name: str
    artifacts: tuple[Artifact, ...]
    files: tuple[BundleFile, ...]
    source: Source
    spec: dict[str, Any]  # the architecture, for information: backends read it from the artifact
    recipe: str
    tensor_groups: tuple[TensorGroup, ...]
    device: str | None
    versions: dict[str, str]
    sampling: dict[str, float] | msgspec.UnsetType = msgspec.UNSET  # the model's sampling parameters, for information
    quality: QualityReport | msgspec.UnsetType = msgspec.UNSET  # of a calibrated export
    pruning: PruningReport | msgspec.UnsetType = msgspec.UNSET  # of an export with fewer experts
    warnings: tuple[str, ...] = ()
    manifest_sha256: _Sha256 | msgspec.UnsetType = msgspec.UNSET  # of this text; see integrity/manifest_seal.py


class Bundle(msgspec.Struct, frozen=True):
    """A bundle whose manifest was read, and whose files exist with the right sizes."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read the manifest of the folder ``path`` and compare it with the files.

        Raises:
            BundleError: the manifest is missing or invalid, or files are missing, have another size, or are outside the
                folder; all such files are named.
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
            BundleError: the bundle has no such artifact; the message lists those it has.
        """
        for artifact in self.manifest.artifacts:
            if artifact.format == format:
                return self.path / artifact.file
        available = ", ".join(artifact.format for artifact in self.manifest.artifacts)
        raise BundleError(
            f"{self.path}: no {format!r} artifact in this bundle, only {available}; export it with --format {format}"
        )

    def file(self, name: str) -> Path | None:
        """Path of the bundle's file called ``name``, or ``None``."""
        is_listed = any(file.name == name for file in self.manifest.files)
        return self.path / name if is_listed else None

    def check(self, progress: ReportProgress = no_progress) -> tuple[str, ...]:
        """Read every byte of every file, with all cores, and compare the hashes; the manifest's own as well.

        Args:
            progress: called ten times a second, in bytes.

        Returns:
            Notes on what has no hash: files that the manifest does not list.

        Raises:
            BundleError: a hash differs; all such files are named, and the tensors of a GGUF that sprat wrote.
        """
        text = manifest_text(self.path)
        problems = [seal_problem(text), *hash_problems(self.path, self.manifest.files, progress)]
        _raise_all(self.path, filter(None, problems), "copy the bundle again, or export it again")
        others = unlisted_files(
            self.path, {MANIFEST_NAME, *EDITABLE_FILES, *(file.name for file in self.manifest.files)}
        )
        notes = (
            "" if is_sealed(text) else "the manifest has no hash of itself, as an older sprat wrote it; export again",
            f"not in the manifest, and not checked: {summarize(others, 4)}" if others else "",
        )
        return tuple(filter(None, notes))


def has_manifest(folder: Path) -> bool:
    """Whether ``folder`` is a bundle, be it a damaged one: a link that leads nowhere counts."""
    return os.path.lexists(folder / MANIFEST_NAME)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of ``folder``, without comparing it with the files.

    Raises:
        BundleError: the manifest is missing or invalid.
    """
    path, text = folder / MANIFEST_NAME, manifest_text(folder)
    try:
        version = parse_json(text, _Version).schema_version
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path}: schema version {version}, expected {SCHEMA_VERSION}; use the version of sprat that wrote it"
            )
        manifest: Manifest = parse_json(text, Manifest)
    except DocumentError as error:
        raise BundleError(f"{path}: not a manifest ({error}); export the bundle again") from error
    return manifest


def manifest_text(folder: Path) -> bytes:
    """The bytes of the manifest of ``folder``.

    Raises:
        BundleError: it cannot be read, or is too large.
    """
    path = folder / MANIFEST_NAME
    try:
        text = read_input(path, _MAX_MANIFEST_BYTES)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); expected a folder written by `sprat export`"
        ) from error
    return text


class _Version(msgspec.Struct):
    """The key that decides how the others are read."""

    schema_version: int


def _name_problems(manifest: Manifest) -> Iterator[str]:
    names = [file.name for file in manifest.files]
    for name in names:
        if reason := _unsafe(name):
            yield f"file name {name!r} {reason}"
    folded = Counter(unicodedata.normalize("NFC", name).casefold() for name in names)
    for name, count in folded.items():
        if count > 1:
            yield f"{count} files have the name {name!r} on a file system that ignores case or Unicode normalization"


def _unsafe(name: str) -> str:
    """Why ``name`` must not be joined to a folder; empty if it may."""
    if not name.isprintable() or "\\" in name:
        return "holds a character that is not allowed"
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
    try:
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):  # resolve() fails in a loop
            yield f"{file.name!r} is a link that leaves the folder"
        elif not path.is_file():
            yield f"{file.name!r} is missing"
        elif path.stat().st_size != file.size_bytes:
            yield f"{file.name!r} has {path.stat().st_size} bytes, the manifest says {file.size_bytes}"
    except OSError as error:  # a name of over 255 bytes, say
        yield f"{file.name[:60]!r} cannot be read ({error.strerror})"


def _raise_all(path: Path, problems: Iterable[str], remedy: str) -> None:
    found = "; ".join(problems)
    if found:
        raise BundleError(f"{path}: {found}; {remedy}")
