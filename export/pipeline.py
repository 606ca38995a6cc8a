"""Export a checkpoint to a bundle.

1. Open the source: read its config and headers, no weights.
2. Choose the recipe: the requested one, or the best one that fits the device. A model that does not fit is an error.
3. Compute the layout of every artifact.
4. Read the source once: check that every tensor is present, of the expected shape and finite, and hash the files.
5. Write the artifacts, the tokenizer files and the manifest; one rename gives the bundle its final name.
"""

from __future__ import annotations

import hashlib
import math
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
from sprat.export.gguf.artifact import gguf_artifact
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata, valid_keys
from sprat.export.onnx import OnnxOptions, onnx_artifact
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.file import FileTensor
from sprat.export.source.lora import AdapterOption
from sprat.export.source.tensor import SourceTensor
from sprat.export.write.bundle import BundleFolder, existing_manifest
from sprat.export.write.chat_template import replace_template, template_warnings
from sprat.export.write.naming import ModelName, model_id
from sprat.export.write.tokenizer_files import tokenizer_texts
from sprat.export.write.writer import WrittenFile
from sprat.progress import ReportProgress, no_progress
from sprat.quant.formats import BlockFormat, get_format
from sprat.quant.recipe import KEEP, KeptFormats, Recipe
from sprat.runtime.arch.architecture import architectures
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.spec_json import spec_fields
from sprat.runtime.files.bundle import Artifact, Bundle, BundleFile, Manifest, Source, TensorGroup
from sprat.runtime.footprint import planned_footprint, planned_recipes
from sprat.runtime.generate.sampling_defaults import (
    metadata_from_sampling,
    sampling_from_config,
    sampling_from_metadata,
)
from sprat.runtime.memory import parse_memory
from sprat.runtime.tokenizer.hf_files import TokenizerFiles

__all__ = ["ArtifactWriter", "ExportResult", "export"]

_DEFAULT_QUANT = "int4"
_UP_TO_DATE = "the bundle exists already and is up to date"
_PACKAGES = ("sprat", "numpy", "gguf", "safetensors", "tokenizers")  # whose versions the manifest records


class ArtifactWriter(Protocol):
    """The files of one artifact format, laid out and ready to be written."""

    @property
    def file_name(self) -> str:
        """Name of the main file."""

    @property
    def layout_digest(self) -> str:
        """SHA-256 of everything that decides the files' bytes except the weights."""

    @property
    def groups(self) -> tuple[TensorGroup, ...]:
        """Formats and sizes by role."""

    def check_free_space(self, folder: Path) -> None:
        """Raise ExportError when the bytes still to be written exceed the free space; ``folder`` need not exist."""

    def check_range(self) -> None:
        """Raise FormatError when a weight exceeds the range of its format; reads the source once, unless it was."""

    def write(self, folder: Path, progress: ReportProgress) -> Sequence[WrittenFile]:
        """Write the files, or continue an interrupted write."""


class ArtifactFactory(Protocol):
    """Makes the writer of one artifact format; reads no weights."""

    def __call__(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        *,
        name: ModelName,
        tokenizer: Mapping[str, Any],
    ) -> ArtifactWriter:
        """Lay out the artifact of ``checkpoint``."""


def writers(*, align: int | None, split: int | None, onnx: OnnxOptions) -> dict[str, ArtifactFactory]:
    """Artifact format -> factory, bound to the options of that format."""
    return {
        "gguf": partial(gguf_artifact, align=align, split_bytes=split),
        "onnx": partial(onnx_artifact, options=onnx),
    }


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
    quant: str | None = None,
    device: str | None = None,
    formats: Sequence[str] = ("gguf",),
    tensor_rules: Sequence[str] = (),
    align: int | None = None,
    split: int | str | None = None,
    name: str | None = None,
    onnx: OnnxOptions | None = None,
    context: int | None = None,
    lora: Sequence[str | os.PathLike[str]] = (),
    ignore_config_fields: Sequence[str] = (),
    chat_template: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: ReportProgress = no_progress,
) -> ExportResult:
    """Export a checkpoint to a bundle. After an interruption the same call continues and writes the same bytes.

    Args:
        source: a Hugging Face model folder, or a GGUF file.
        out: the bundle's folder; created when everything is written.
        quant: ``int4``, ``int8``, a block format, or ``keep`` for the formats of a GGUF; by default the best that fits
            ``device``, or ``int4``.
        device: a profile's name; a model that does not fit its memory is an error before any weight is read.
        formats: artifact formats to write, ``gguf`` or ``onnx``.
        tensor_rules: formats of single tensors, ``"ffn_down_exps=q5_0"``; later rules win.
        align: alignment of a GGUF's tensors in bytes; by default 4096 for MoE models and 32 otherwise.
        split: split the GGUF into files of at most this size, in bytes or as ``"4GB"``, if it is larger.
        name: the model's name, ``"owner/Name-7B-Chat"``; by default that of the source.
        onnx: options of the ONNX graph.
        context: tokens to plan the cache for; by default the model's limit, at most 4096.
        lora: folders of LoRA adapters to merge into the weights, ``"DIR"`` or ``"DIR:scale"``.
        ignore_config_fields: unknown fields of ``config.json`` that change no mathematics; the manifest lists them.
        chat_template: a Jinja file to use instead of the source's chat template.
        force: replace a bundle at ``out``, and export a model that does not fit ``device``.
        progress: called after each chunk that was read or written.

    Raises:
        InputError: the source, the device, a format or a rule is invalid, or the model does not fit.
        ExportError: the output cannot be written, or the source changed during the export.
    """
    out = Path(out)
    adapters = [AdapterOption.parse(os.fspath(text)) for text in lora]
    checkpoint = Checkpoint.open(source, ignore_fields=ignore_config_fields, adapters=adapters)
    recipes = _recipes(checkpoint, quant or (None if device else _DEFAULT_QUANT), tensor_rules, formats)
    recipe, plan = _choose_recipe(checkpoint.spec, recipes, device, context, force)
    tokenizer = _tokenizer_keys(checkpoint, chat_template)
    factories = writers(align=align, split=_split_bytes(split), onnx=onnx or OnnxOptions())
    artifacts = _lay_out(checkpoint, recipe, formats, tokenizer, factories, name)
    texts = tokenizer_texts(checkpoint, tokenizer, complete="onnx" in artifacts)
    if (existing := existing_manifest(out)) and not force:
        bundle = _same_bundle(out, existing, checkpoint, artifacts, texts)
        return ExportResult(bundle=bundle, plan=plan, n_resumed=0, notes=(_UP_TO_DATE,))
    folder = BundleFolder.beside(out)
    written = _write(folder, artifacts, checkpoint, progress)
    files = (*map(_describe, written), *(folder.add(name, text) for name, text in sorted(texts.items())))
    manifest = _manifest(checkpoint, recipe, artifacts, files, device, tokenizer, name)
    return ExportResult(
        bundle=folder.finish(manifest),
        plan=plan,
        n_resumed=sum(file.n_resumed for file in written),
        notes=tuple(file.note for file in written if file.note),
    )


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


def _manifest(
    checkpoint: Checkpoint,
    recipe: Recipe,
    artifacts: Mapping[str, ArtifactWriter],
    files: tuple[BundleFile, ...],
    device: str | None,
    tokenizer: Mapping[str, Any],
    name: str | None,
) -> Manifest:
    """The manifest, from the layouts and the written files."""
    unused = [f"rule {rule} matches no tensor" for rule in recipe.unused_rules(checkpoint.names())]
    return Manifest(
        name=name or _identity(checkpoint),
        artifacts=tuple(
            Artifact(format=name, file=a.file_name, layout_digest=a.layout_digest) for name, a in artifacts.items()
        ),
        files=files,
        source=_describe_source(checkpoint),
        spec=spec_fields(checkpoint.spec),
        recipe=" ".join([recipe.name, *map(str, recipe.rules)]),
        tensor_groups=next(iter(artifacts.values())).groups,
        device=device,
        versions={name: version(name) for name in (*_PACKAGES, *(["onnx-ir"] if "onnx" in artifacts else []))},
        sampling=dict(sampling_from_metadata(tokenizer)) or msgspec.UNSET,
        warnings=(*_source_warnings(checkpoint, recipe), *unused, *template_warnings(checkpoint, tokenizer)),
    )


def _source_warnings(checkpoint: Checkpoint, recipe: Recipe) -> list[str]:
    left_out = checkpoint.quantized_warnings if recipe.name == KEEP else []
    architecture = architectures()[checkpoint.spec.architecture]
    return [
        *(warning for warning in checkpoint.warnings if warning not in left_out),
        *architecture.differs_in_llamacpp(checkpoint.spec),
    ]


def _recipes(
    checkpoint: Checkpoint, quant: str | None, rules: Sequence[str], formats: Sequence[str]
) -> Sequence[Recipe]:
    """The recipes to choose from, best quality first."""
    if quant is None or quant.lower() != KEEP:
        return planned_recipes(checkpoint.spec, quant, rules)
    if not checkpoint.metadata or list(formats) != ["gguf"]:
        raise InputError(
            f"{checkpoint.path}: --quant keep copies the tensors of a GGUF into a GGUF, found "
            f"{'a GGUF' if checkpoint.metadata else 'a checkpoint'} and --format {','.join(formats)}; "
            "choose a block format such as q8_0 or bf16"
        )
    kept = {name: _kept_format(tensor) for name, tensor in checkpoint.tensors.items()}
    sizes = {name: math.prod(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    return (KeptFormats.of(kept, sizes).with_rules(rules),)


def _kept_format(tensor: SourceTensor) -> BlockFormat:
    """The tensor's format; Q8_0 where rearranging took it out of its blocks (attn_k_b of an old quantized file)."""
    made = not isinstance(tensor.rows, FileTensor) and len(tensor.shape) > 1 and tensor.format.name == "F32"
    q8_0 = get_format("Q8_0")
    return q8_0 if made and q8_0.divides(tensor.shape[-1]) else tensor.format


def _choose_recipe(
    spec: ModelSpec, recipes: Sequence[Recipe], device: str | None, context: int | None, force: bool
) -> tuple[Recipe, Plan | None]:
    if device is None:
        return recipes[0], None
    footprints = [planned_footprint(spec, recipe, context=context) for recipe in recipes]
    plan = choose_quant(footprints, load_profile(device), force=force)
    return recipes[footprints.index(plan.footprint)], plan


def _split_bytes(split: int | str | None) -> int | None:
    return None if split is None else parse_memory(split, "split")


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
    formats: Sequence[str],
    tokenizer: Mapping[str, Any],
    factories: Mapping[str, ArtifactFactory],
    name: str | None,
) -> dict[str, ArtifactWriter]:
    if unknown := [name for name in formats if name not in factories]:
        raise InputError(unknown_name("artifact format", unknown[0], factories))
    if not formats:
        raise InputError(f"no artifact format was given; known: {', '.join(factories)}")
    shapes = {tensor.name: tensor.shape for tensor in checkpoint.tensors.values()}
    if name is not None and not name.strip():
        raise InputError("--name is empty; expected a name such as Name-7B-Chat")
    parts = (
        ModelName.of(_identity(checkpoint), checkpoint.metadata, shapes)
        if name is None
        else ModelName.parse(name, shapes)
    )
    return {format: factories[format](checkpoint, recipe, name=parts, tokenizer=tokenizer) for format in formats}


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
        raise ExportError(f"{out}: another bundle exists there; choose another name, or replace it with --force")
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
        adapters=checkpoint.merged_adapters(),
        ignored_config_fields=checkpoint.ignored_fields,
    )
