"""Export a checkpoint to a bundle.

1. Open the source: read its config and headers, no weights.
2. Choose the recipe: the requested one, or the best one that fits the device. A model that does not fit is an error.
3. Compute the layout of every artifact.
4. Read the source once: check that every tensor is present, of the expected shape and finite, and hash the files.
5. Lock ``OUT.partial``, and write the artifacts, the tokenizer files and the manifest there.
6. Open the bundle and compute the logits of a short prompt; one rename gives it its final name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from sprat.devices.plan.plan import Plan
from sprat.errors import BundleError, ExportError
from sprat.export.artifacts import ArtifactWriter
from sprat.export.calibrated import calibrate, calibration_digest, is_calibrated
from sprat.export.card.files import card_texts
from sprat.export.manifest import describe_file, manifest_of
from sprat.export.options import ExportKeywords, ExportOptions
from sprat.export.prepare import PreparedExport, prepare
from sprat.export.pruned import prepared_pruning_digest, prune_prepared
from sprat.export.quality.options import Target
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.verify.first_logits import check_first_logits
from sprat.export.write.bundle import BundleFolder, existing_manifest, files_folder, remove_leftovers
from sprat.export.write.errors import output_path
from sprat.export.write.own_folder import check_partial
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.chat.check import can_chat
from sprat.runtime.chat.template_files import StoredTemplates
from sprat.runtime.files.bundle import Bundle, BundleFile, Manifest, TensorGroup

__all__ = ["ExportResult", "export"]

_UP_TO_DATE = "the bundle exists already and is up to date"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """The result of :func:`export`."""

    bundle: Bundle
    plan: Plan | None  # for the device, if one was given
    n_resumed: int  # tensors kept from an interrupted run
    notes: tuple[str, ...]  # about this run; warnings for users of the bundle are in the manifest
    chats: bool  # whether the model has a chat template that renders a question

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

    A bundle of the same export at ``out`` is kept if its hashes are right, and written again if it is damaged.

    Args:
        source: a Hugging Face model folder, or a GGUF file.
        out: the bundle's folder; created when everything is written.
        progress: called after each chunk that was read or written.
        keywords: the fields of :class:`~sprat.export.options.ExportOptions`.

    Raises:
        InputError: the source, the device, a format or a rule is invalid, or the model does not fit.
        ExportError: the output cannot be written, or the source changed during the export.
    """
    out, options = output_path(out), ExportOptions.of(keywords)
    prepared = prepare(source, out, options)
    repaired: list[str] = []
    if (existing := existing_manifest(out)) and not options.force:
        remove_leftovers(out)
        _check_same_export(out, existing, prepared, options)
        bundle, damage = _whole_bundle(out, progress)
        if bundle:
            return _up_to_date(bundle, prepared)
        repaired = [f"the bundle was damaged and was written again: {damage}"]
    check_partial(out)
    prepared = _chosen(prepared, files_folder(out), options, progress)
    checkpoint, artifacts, texts = prepared.checkpoint, prepared.artifacts, prepared.texts
    _check_before(files_folder(out), artifacts, checkpoint, progress)
    with BundleFolder.lock(out) as folder:
        if (existing := existing_manifest(out)) and not options.force and not repaired:  # by another process
            _check_same_export(out, existing, prepared, options)
            return _up_to_date(Bundle.open(out), prepared)
        written = [file for artifact in artifacts.values() for file in artifact.write(folder.path, progress)]
        checkpoint.check_unchanged()
        files = (*map(describe_file, written), *(folder.add(name, text) for name, text in sorted(texts.items())))
        notes = [*prepared.notes, *repaired, *(file.note for file in written if file.note)]
        manifest = _manifest(prepared, files, options)
        for name, text in card_texts(manifest, prepared.tokenizer, options.context).items():
            folder.add(name, text)
        bundle = folder.finish(manifest, check=lambda path: notes.extend(check_first_logits(path)))
    n_resumed = sum(file.n_resumed for file in written)
    return ExportResult(
        bundle=bundle, plan=prepared.plan, n_resumed=n_resumed, notes=tuple(notes), chats=_chats(prepared)
    )


def _chosen(prepared: PreparedExport, folder: Path, options: ExportOptions, progress: ReportProgress) -> PreparedExport:
    """The export with the experts and formats that weights and texts decide."""
    if options.prune_experts is not None:
        prepared = prune_prepared(prepared, options, progress)
    if not is_calibrated(prepared, options):
        return prepared
    if options.calibrated.target == Target():  # as many bytes as these
        _check_space(folder, prepared.artifacts)
    return calibrate(prepared, options, progress)


def _manifest(prepared: PreparedExport, files: tuple[BundleFile, ...], options: ExportOptions) -> Manifest:
    return manifest_of(
        prepared.checkpoint,
        prepared.recipe,
        prepared.artifacts,
        files,
        prepared.tokenizer,
        options,
        quality=prepared.quality,
        pruning=prepared.pruning,
    )


def _check_before(
    folder: Path, artifacts: Mapping[str, ArtifactWriter], checkpoint: Checkpoint, progress: ReportProgress
) -> None:
    """Look at everything that can be refused before something is written to ``folder``."""
    _check_space(folder, artifacts)
    checkpoint.verify_complete(progress)
    for artifact in artifacts.values():
        artifact.check_range()


def _check_space(folder: Path, artifacts: Mapping[str, ArtifactWriter]) -> None:
    for artifact in artifacts.values():
        artifact.check_free_space(folder)


def _whole_bundle(out: Path, progress: ReportProgress) -> tuple[Bundle | None, BundleError | None]:
    """The bundle at ``out``, or its damage."""
    try:
        (bundle := Bundle.open(out)).check(progress)
    except BundleError as damage:
        return None, damage
    return bundle, None


def _up_to_date(bundle: Bundle, prepared: PreparedExport) -> ExportResult:
    notes = (*prepared.notes, _UP_TO_DATE)
    return ExportResult(bundle=bundle, plan=prepared.plan, n_resumed=0, notes=notes, chats=_chats(prepared))


def _chats(prepared: PreparedExport) -> bool:
    return can_chat(StoredTemplates.from_metadata(prepared.tokenizer).template())


def _check_same_export(out: Path, manifest: Manifest, prepared: PreparedExport, options: ExportOptions) -> None:
    """Check that an export of the same source, layout, recipe and tokenizer files wrote the bundle at ``out``.

    The layout of a calibrated export follows from its digest.

    Raises:
        ExportError: it is another one.
    """
    hashes = {file.name: file.sha256 for file in manifest.files}
    existing = {artifact.format: artifact.layout_digest for artifact in manifest.artifacts}
    wanted = {name: artifact.layout_digest for name, artifact in prepared.artifacts.items()}
    texts = prepared.texts
    if is_calibrated(prepared, options):
        found = manifest.quality.digest if manifest.quality else ""
        is_same = found == calibration_digest(prepared, options)
    else:
        is_same_text = all(hashes.get(name) == hashlib.sha256(text).hexdigest() for name, text in texts.items())
        is_same = existing == wanted and is_same_text and not manifest.quality
    pruned = manifest.pruning.digest if manifest.pruning else ""
    is_same = is_same and pruned == prepared_pruning_digest(prepared, options)
    if not is_same or manifest.source.hash != prepared.checkpoint.hash():
        raise ExportError(f"{out}: another bundle exists there; choose another name, or replace it with --force")
