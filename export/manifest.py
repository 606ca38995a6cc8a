"""The manifest of a bundle, from what was read, laid out and written."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from sprat.export.artifacts import ArtifactWriter
from sprat.export.options import ExportOptions
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.recognize.end_tokens import end_token_warnings
from sprat.export.write.chat_template import template_warnings
from sprat.export.write.naming import model_id
from sprat.export.write.writer import WrittenFile
from sprat.quant.recipe import KEEP, Recipe
from sprat.runtime.arch.gguf_keys import llamacpp_differences
from sprat.runtime.arch.spec_json import spec_fields
from sprat.runtime.files.bundle import Artifact, BundleFile, Manifest, PruningReport, QualityReport, Source
from sprat.runtime.files.integrity.tensor_digests import pack_digests
from sprat.runtime.generate.sampling_defaults import sampling_from_metadata, unused_entries
from sprat.runtime.tokenizer.hf_files import read_generation_config

__all__ = ["describe_file", "identity", "manifest_of", "recipe_name"]

_PACKAGES = ("sprat", "numpy", "gguf", "safetensors", "tokenizers")  # whose versions the manifest records


def manifest_of(
    checkpoint: Checkpoint,
    recipe: Recipe,
    artifacts: Mapping[str, ArtifactWriter],
    files: tuple[BundleFile, ...],
    tokenizer: Mapping[str, Any],
    options: ExportOptions,
    *,
    quality: QualityReport | None = None,
    pruning: PruningReport | None = None,
) -> Manifest:
    """The manifest, from the layouts and the written files."""
    return Manifest(
        name=options.name or identity(checkpoint),
        artifacts=tuple(
            Artifact(
                format=name,
                file=a.file_name,
                layout_digest=a.layout_digest,
                requires=a.requires or msgspec.UNSET,
            )
            for name, a in artifacts.items()
        ),
        files=files,
        source=_source(checkpoint),
        spec=spec_fields(checkpoint.spec),
        recipe=recipe_name(recipe),
        tensor_groups=next(iter(artifacts.values())).groups,
        device=options.device_name,
        versions={name: version(name) for name in (*_PACKAGES, *(["onnx-ir"] if "onnx" in artifacts else []))},
        sampling=dict(sampling_from_metadata(tokenizer)) or msgspec.UNSET,
        quality=quality or msgspec.UNSET,
        pruning=pruning or msgspec.UNSET,
        warnings=(*_source_warnings(checkpoint, recipe), *template_warnings(checkpoint, tokenizer)),
    )


def _source_warnings(checkpoint: Checkpoint, recipe: Recipe) -> list[str]:
    left_out = checkpoint.quantized_warnings if recipe.name == KEEP else []
    return [
        *(warning for warning in checkpoint.warnings if warning not in left_out),
        *llamacpp_differences(checkpoint.spec),
        *end_token_warnings(checkpoint.path, checkpoint.spec.vocab_size),
        *_unused_entries(checkpoint.path),
    ]


def _unused_entries(source: Path) -> list[str]:
    """Entries of a folder's generation_config.json that are not used; callers have options for most of them."""
    names = unused_entries(read_generation_config(source)) if source.is_dir() else []
    return [f"not used of generation_config.json: {', '.join(names)}"] if names else []


def identity(checkpoint: Checkpoint) -> str:
    """The source's name, from its path."""
    return model_id(checkpoint.path.absolute())


def recipe_name(recipe: Recipe) -> str:
    """The recipe with its rules, on one line."""
    return " ".join([recipe.name, *map(str, recipe.rules)])


def describe_file(file: WrittenFile) -> BundleFile:
    """The manifest's entry of a written file."""
    digests = pack_digests(file.pieces) if file.pieces else msgspec.UNSET
    return BundleFile(name=file.path.name, size_bytes=file.nbytes, sha256=file.sha256, tensor_digests=digests)


def _source(checkpoint: Checkpoint) -> Source:
    return Source(
        name=identity(checkpoint),
        format="gguf" if checkpoint.metadata else "safetensors",
        hash=checkpoint.hash(),
        quantized=any(tensor.format.block_size > 1 for tensor in checkpoint.tensors.values()),
        adapters=checkpoint.merged_adapters(),
        ignored_config_fields=checkpoint.ignored_fields,
    )
