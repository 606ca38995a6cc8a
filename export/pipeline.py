"""Export a checkpoint to a bundle.

1. Open the source: read its config and headers, no weights.
2. Choose the recipe: the requested one, or the best one that fits the device. A model that does not fit is an error.
3. Compute the layout of every artifact.
4. Read the source once: check that every tensor is present, of the expected shape and finite, and hash the files.
5. Write the artifacts, the tokenizer files and the manifest; one rename gives the bundle its final name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from sprat.devices.plan.plan import Plan
from sprat.errors import ExportError, InputError, unknown_name
from sprat.export.artifacts import ArtifactWriter, factories
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata, valid_keys
from sprat.export.manifest import describe_file, identity, manifest_of
from sprat.export.options import ExportKeywords, ExportOptions
from sprat.export.quality.plan import plan_quality, quality_digest
from sprat.export.recipe_choice import choose_recipe
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.write.bundle import BundleFolder, existing_manifest
from sprat.export.write.chat_template import replace_template
from sprat.export.write.naming import ModelName
from sprat.export.write.rounding import Rounding
from sprat.export.write.tokenizer_files import tokenizer_texts
from sprat.export.write.writer import WrittenFile
from sprat.progress import ReportProgress, no_progress
from sprat.quant.recipe import KEEP, Recipe
from sprat.runtime.files.bundle import Bundle, Manifest, QualityReport, TensorGroup
from sprat.runtime.generate.sampling_defaults import (
    metadata_from_sampling,
    sampling_from_config,
    sampling_from_metadata,
)
from sprat.runtime.tokenizer.hf_files import TokenizerFiles

__all__ = ["ExportResult", "export"]

_UP_TO_DATE = "the bundle exists already and is up to date"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """The result of :func:`export`."""

    bundle: Bundle
    plan: Plan | None  # for the device, if one was given
    n_resumed: int  # tensors kept from an interrupted run
    notes: tuple[str, ...]  # about this run; warnings for users of the bundle are in the manifest

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
        """Mean over all weights, scales included."""
        return 8 * sum(group.size_bytes for group in self.groups) / sum(group.n_weights for group in self.groups)

    @property
    def fallbacks(self) -> tuple[TensorGroup, ...]:
        """Groups whose rows do not divide into blocks of the wanted format."""
        return tuple(group for group in self.groups if group.format != group.wanted)


def export(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: ReportProgress = no_progress,
    **keywords: Unpack[ExportKeywords],
) -> ExportResult:
    """Export a checkpoint to a bundle. After an interruption the same call continues and writes the same bytes.

    Args:
        source: a Hugging Face model folder, or a GGUF file.
        out: the bundle's folder; created when everything is written.
        progress: called after each chunk that was read or written.
        keywords: the fields of :class:`~sprat.export.options.ExportOptions`.

    Raises:
        InputError: the source, the device, a format or a rule is invalid, or the model does not fit.
        ExportError: the output cannot be written, or the source changed during the export.
    """
    out, options = Path(out), ExportOptions.of(keywords)
    checkpoint = Checkpoint.open(source, ignore_fields=options.ignore_config_fields, adapters=options.adapters)
    recipe, plan = choose_recipe(checkpoint, options)
    tokenizer = _tokenizer_keys(checkpoint, options.chat_template)
    if options.calibrated.level != "none":
        return _export_calibrated(out, checkpoint, recipe, plan, tokenizer, options, progress)
    artifacts = _lay_out(checkpoint, recipe, tokenizer, options)
    texts = tokenizer_texts(checkpoint, tokenizer, complete="onnx" in artifacts)
    if (existing := existing_manifest(out)) and not options.force:
        bundle = _same_bundle(out, existing, checkpoint, artifacts, texts)
        return ExportResult(bundle=bundle, plan=plan, n_resumed=0, notes=(_UP_TO_DATE,))
    return _publish(out, checkpoint, recipe, plan, artifacts, texts, tokenizer, options, progress)


def _export_calibrated(
    out: Path,
    checkpoint: Checkpoint,
    recipe: Recipe,
    plan: Plan | None,
    tokenizer: Mapping[str, Any],
    options: ExportOptions,
    progress: ReportProgress,
) -> ExportResult:
    """The export with formats and codes by :mod:`sprat.export.quality`."""
    wanted = options.calibrated
    if list(options.formats) != ["gguf"] or recipe.name == KEEP:
        raise InputError(
            f"--quality {wanted.level} writes a GGUF with formats of its own; omit --format onnx and --quant keep, or "
            "choose --quality none"
        )
    checkpoint.verify_complete(progress)
    if (existing := existing_manifest(out)) and not options.force:
        digest = quality_digest(checkpoint, recipe, wanted, tokenizer)
        if not existing.quality or existing.quality.digest != digest or existing.source.hash != checkpoint.hash():
            raise _another_bundle(out)
        return ExportResult(bundle=Bundle.open(out), plan=plan, n_resumed=0, notes=(_UP_TO_DATE,))

    def file_size(tried: Recipe) -> int:
        artifact = _lay_out(checkpoint, tried, tokenizer, options)["gguf"]
        return artifact.nbytes

    quality = plan_quality(checkpoint, recipe, wanted, tokenizer, file_size, progress)
    artifacts = _lay_out(checkpoint, quality.recipe, tokenizer, options, quality.rounding)
    texts = tokenizer_texts(checkpoint, tokenizer, complete=False)
    return _publish(
        out, checkpoint, quality.recipe, plan, artifacts, texts, tokenizer, options, progress, quality.report
    )


def _publish(
    out: Path,
    checkpoint: Checkpoint,
    recipe: Recipe,
    plan: Plan | None,
    artifacts: Mapping[str, ArtifactWriter],
    texts: Mapping[str, bytes],
    tokenizer: Mapping[str, Any],
    options: ExportOptions,
    progress: ReportProgress,
    quality: QualityReport | None = None,
) -> ExportResult:
    """Write everything, and give the bundle its name."""
    folder = BundleFolder.beside(out)
    written = _write(folder, artifacts, checkpoint, progress)
    files = (*map(describe_file, written), *(folder.add(name, text) for name, text in sorted(texts.items())))
    bundle = folder.finish(manifest_of(checkpoint, recipe, artifacts, files, tokenizer, options, quality))
    notes = tuple(file.note for file in written if file.note)
    return ExportResult(bundle=bundle, plan=plan, n_resumed=sum(file.n_resumed for file in written), notes=notes)


def _write(
    folder: BundleFolder, artifacts: Mapping[str, ArtifactWriter], checkpoint: Checkpoint, progress: ReportProgress
) -> list[WrittenFile]:
    """Write the artifacts, after everything that can be refused beforehand was looked at."""
    for artifact in artifacts.values():
        artifact.check_free_space(folder.partial)
    checkpoint.verify_complete(progress)
    for artifact in artifacts.values():
        artifact.check_range()
    folder.make()
    return [file for artifact in artifacts.values() for file in artifact.write(folder.partial, progress)]


def _tokenizer_keys(checkpoint: Checkpoint, chat_template: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Tokenizer, chat template and sampling parameters as GGUF keys."""
    keys = _source_tokenizer_keys(checkpoint)
    return keys if chat_template is None else replace_template(keys, chat_template)


def _source_tokenizer_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """The keys of the source: converted from a folder's files, or copied from a GGUF."""
    if checkpoint.path.is_dir():
        sampling = sampling_from_config(
            TokenizerFiles(checkpoint.path).generation, str(checkpoint.path / "generation_config.json")
        )
        return {**metadata_from_sampling(sampling), **tokenizer_metadata(checkpoint.path)}
    sampling = sampling_from_metadata(checkpoint.metadata)
    return {**metadata_from_sampling(sampling), **valid_keys(checkpoint.metadata)}


def _lay_out(
    checkpoint: Checkpoint,
    recipe: Recipe,
    tokenizer: Mapping[str, Any],
    options: ExportOptions,
    rounding: Rounding | None = None,
) -> dict[str, ArtifactWriter]:
    known, wanted = factories(options), options.formats
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(unknown_name("artifact format", unknown[0], known))
    if not wanted:
        raise InputError(f"no artifact format was given; known: {', '.join(known)}")
    name = _model_name(checkpoint, options.name)
    return {
        format: known[format](checkpoint, recipe, name=name, tokenizer=tokenizer, rounding=rounding)
        for format in wanted
    }


def _model_name(checkpoint: Checkpoint, name: str | None) -> ModelName:
    shapes = {tensor.name: tensor.shape for tensor in checkpoint.tensors.values()}
    if name is None:
        return ModelName.of(identity(checkpoint), checkpoint.metadata, shapes)
    if not name.strip():
        raise InputError("--name is empty; expected a name such as Name-7B-Chat")
    return ModelName.parse(name, shapes)


def _same_bundle(
    out: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    artifacts: Mapping[str, ArtifactWriter],
    texts: Mapping[str, bytes],
) -> Bundle:
    """The bundle at ``out``, if an export of the same source, layout, recipe and tokenizer files wrote it."""
    hashes = {file.name: file.sha256 for file in manifest.files}
    is_same_text = all(hashes.get(name) == hashlib.sha256(text).hexdigest() for name, text in texts.items())
    existing = {artifact.format: artifact.layout_digest for artifact in manifest.artifacts}
    wanted = {name: artifact.layout_digest for name, artifact in artifacts.items()}
    if existing != wanted or not is_same_text or manifest.source.hash != checkpoint.hash():
        raise _another_bundle(out)
    return Bundle.open(out)


def _another_bundle(out: Path) -> ExportError:
    return ExportError(f"{out}: another bundle exists there; choose another name, or replace it with --force")
