"""From a checkpoint to a bundle, step by step.

1. Open the source: its config and headers say what it is; nothing large is read.
2. Choose the recipe: the one asked for, or the best preset that fits the device. What does not fit is refused here.
3. Plan every artifact to its last byte.
4. Read the source once: every weight there, of its shape and finite, and the hash of it all.
5. Write the artifacts, then the tokenizer's files, then the manifest; the bundle appears with one rename.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import msgspec

from sprat.devices.plan.choose import choose_quant
from sprat.devices.plan.plan import Plan
from sprat.devices.profile import load_profile
from sprat.errors import ExportError, InputError, unknown_name
from sprat.export.gguf.artifact import plan_gguf
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.export.onnx import OnnxOptions, plan_onnx
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.write.bundle import BundleFolder, existing_manifest
from sprat.export.write.naming import ModelName, model_id
from sprat.export.write.tokenizer_files import tokenizer_texts
from sprat.export.write.writer import WrittenFile
from sprat.progress import ReportProgress, no_progress
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.files.bundle import Artifact, Bundle, BundleFile, Manifest, Source, TensorGroup
from sprat.runtime.footprint import planned_footprint, planned_recipes

__all__ = ["ExportResult", "PlannedArtifact", "export"]

_DEFAULT_QUANT = "int4"
_RECORDED = ("sprat", "numpy", "gguf", "safetensors", "tokenizers")  # whose versions a manifest names


class PlannedArtifact(Protocol):
    """One format's file, planned but not written."""

    @property
    def file_name(self) -> str:
        """Its main file."""

    @property
    def plan(self) -> str:
        """Digest of everything that decides the file but the weights."""

    @property
    def groups(self) -> tuple[TensorGroup, ...]:
        """What the recipe came to."""

    def check_room(self, folder: Path) -> None:
        """Raise ExportError when the disk cannot hold what is still to be written; ``folder`` need not exist."""

    def write(self, folder: Path, progress: ReportProgress) -> Sequence[WrittenFile]:
        """Write its files, or finish writing them."""


class PlanArtifact(Protocol):
    """What plans one format; reads no weights."""

    def __call__(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        *,
        name: ModelName,
        tokenizer: Mapping[str, Any],
    ) -> PlannedArtifact:
        """Plan the artifact of ``checkpoint``."""


def writers(*, align: int | None, onnx: OnnxOptions) -> dict[str, PlanArtifact]:
    """Every artifact format, and what plans it with the options that concern it."""
    return {"gguf": partial(plan_gguf, align=align), "onnx": partial(plan_onnx, options=onnx)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an export made."""

    bundle: Bundle
    plan: Plan | None  # for the device, when one was named
    n_resumed: int  # tensors taken over from an interrupted run
    notes: tuple[str, ...]  # about this run; what a user of the bundle should know is in the manifest's warnings

    @property
    def path(self) -> Path:
        """The bundle's folder."""
        return self.bundle.path

    @property
    def groups(self) -> tuple[TensorGroup, ...]:
        """Formats and sizes by role."""
        return self.bundle.manifest.tensor_groups

    @property
    def bits_per_weight(self) -> float:
        """Of all weights, scales included."""
        return 8 * sum(group.size_bytes for group in self.groups) / sum(group.n_weights for group in self.groups)

    @property
    def fallbacks(self) -> tuple[TensorGroup, ...]:
        """Groups whose rows the wanted format could not divide."""
        return tuple(group for group in self.groups if group.format != group.wanted)


def export(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    quant: str | None = None,
    device: str | None = None,
    formats: Sequence[str] = ("gguf",),
    tensor_rules: Sequence[str] = (),
    align: int | None = None,
    onnx: OnnxOptions | None = None,
    context: int | None = None,
    force: bool = False,
    progress: ReportProgress = no_progress,
) -> ExportResult:
    """Turn a checkpoint into a bundle. Interrupted at any moment, the same call continues, and makes the same bytes.

    Args:
        source: a Hugging Face model folder, or a GGUF file.
        out: the bundle's folder; it appears when everything is written.
        quant: ``int4``, ``int8`` or a block format; by default what fits ``device`` best, without one ``int4``.
        device: a profile's name; what does not fit its memory is refused before anything large is read.
        formats: artifacts to make.
        tensor_rules: formats for some tensors, ``"ffn_down_exps=q5_0"``; later ones win.
        align: bytes to lay a GGUF's tensors on multiples of; by default a page for mixtures.
        onnx: how an ONNX graph is made.
        context: tokens to plan the cache for; the model's limit, at most 4096, unless given.
        force: replace an older bundle at ``out``, and write what does not fit.
        progress: called after each chunk that is read or written.

    Raises:
        InputError: the source, the device, a format or a rule cannot be used, or the model does not fit.
        ExportError: the output cannot be written, or the source changed meanwhile.
    """
    out = Path(out)
    checkpoint = Checkpoint.open(source)
    recipe, plan = _choose_recipe(checkpoint.spec, quant, device, tensor_rules, context, force)
    tokenizer = _tokenizer_keys(checkpoint)
    known = writers(align=align, onnx=onnx or OnnxOptions())
    artifacts = _plan_artifacts(checkpoint, recipe, formats, tokenizer, known)
    if (made := existing_manifest(out)) and not force:
        bundle = _same_bundle(out, made, checkpoint, artifacts)
        return ExportResult(bundle=bundle, plan=plan, n_resumed=0, notes=("this very export was made before",))
    folder = BundleFolder.beside(out)
    for artifact in artifacts.values():
        artifact.check_room(folder.partial)
    checkpoint.verify_complete(progress)
    folder.make()
    written = [file for artifact in artifacts.values() for file in artifact.write(folder.partial, progress)]
    texts = tokenizer_texts(checkpoint, tokenizer, complete="onnx" in artifacts)
    files = (*map(_describe, written), *(folder.add(name, text) for name, text in sorted(texts.items())))
    manifest = _manifest(checkpoint, recipe, artifacts, files, device)
    return ExportResult(
        bundle=folder.finish(manifest),
        plan=plan,
        n_resumed=sum(file.n_resumed for file in written),
        notes=tuple(file.note for file in written if file.note),
    )


def _manifest(
    checkpoint: Checkpoint,
    recipe: Recipe,
    artifacts: Mapping[str, PlannedArtifact],
    files: tuple[BundleFile, ...],
    device: str | None,
) -> Manifest:
    """Everything known about the bundle, from what was planned and written."""
    unused = recipe.unused_rules(checkpoint.names())
    return Manifest(
        name=_identity(checkpoint),
        artifacts=tuple(Artifact(format=form, file=a.file_name, plan=a.plan) for form, a in artifacts.items()),
        files=files,
        source=_describe_source(checkpoint),
        spec=msgspec.to_builtins(checkpoint.spec),
        recipe=" ".join([recipe.name, *map(str, recipe.rules)]),
        tensor_groups=next(iter(artifacts.values())).groups,
        device=device,
        versions={name: version(name) for name in (*_RECORDED, *(["onnx-ir"] if "onnx" in artifacts else []))},
        warnings=(*checkpoint.warnings, *(f"rule {rule} matches no tensor" for rule in unused)),
    )


def _choose_recipe(
    spec: ModelSpec, quant: str | None, device: str | None, rules: Sequence[str], context: int | None, force: bool
) -> tuple[Recipe, Plan | None]:
    recipes = planned_recipes(spec, quant or (None if device else _DEFAULT_QUANT), rules)
    if device is None:
        return recipes[0], None
    footprints = [planned_footprint(spec, recipe, context=context) for recipe in recipes]
    plan = choose_quant(footprints, load_profile(device), force=force)
    return recipes[footprints.index(plan.footprint)], plan


def _tokenizer_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """A folder's tokenizer as GGUF keys, or a GGUF's own keys."""
    if checkpoint.path.is_dir():
        return tokenizer_metadata(checkpoint.path)
    return {key: value for key, value in checkpoint.metadata.items() if key.startswith("tokenizer.")}


def _plan_artifacts(
    checkpoint: Checkpoint,
    recipe: Recipe,
    formats: Sequence[str],
    tokenizer: Mapping[str, Any],
    known: Mapping[str, PlanArtifact],
) -> dict[str, PlannedArtifact]:
    if unknown := [form for form in formats if form not in known]:
        raise InputError(unknown_name("artifact format", unknown[0], known))
    if not formats:
        raise InputError(f"no artifact format was named; known: {', '.join(known)}")
    shapes = {tensor.name: tensor.shape for tensor in checkpoint.tensors.values()}
    name = ModelName.of(_identity(checkpoint), checkpoint.metadata, shapes)
    return {form: known[form](checkpoint, recipe, name=name, tokenizer=tokenizer) for form in formats}


def _same_bundle(
    out: Path, manifest: Manifest, checkpoint: Checkpoint, artifacts: Mapping[str, PlannedArtifact]
) -> Bundle:
    """The bundle at ``out``, if this very export made it."""
    made = {artifact.format: artifact.plan for artifact in manifest.artifacts}
    wanted = {form: artifact.plan for form, artifact in artifacts.items()}
    if made != wanted or manifest.source.hash != checkpoint.hash():
        raise ExportError(f"{out}: holds another bundle already; choose another name, or replace it with --force")
    return Bundle.open(out)


def _identity(checkpoint: Checkpoint) -> str:
    return model_id(checkpoint.path.absolute())


def _describe(file: WrittenFile) -> BundleFile:
    return BundleFile(name=file.path.name, size_bytes=file.nbytes, sha256=file.sha256)


def _describe_source(checkpoint: Checkpoint) -> Source:
    return Source(
        name=_identity(checkpoint),
        format="gguf" if checkpoint.metadata else "safetensors",
        hash=checkpoint.hash(),
        quantized=any(tensor.format.block_size > 1 for tensor in checkpoint.tensors.values()),
    )
