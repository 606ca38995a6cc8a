"""An export before anything is written: what is read, in which formats, laid out to the last byte."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.devices.plan.plan import Plan
from sprat.errors import FormatError, InputError, unknown_name
from sprat.export.artifacts import ArtifactWriter, factories
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata, valid_keys
from sprat.export.manifest import identity
from sprat.export.options import ExportOptions
from sprat.export.pruning.selection import provisional
from sprat.export.recipe_choice import choose_recipe
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.write.chat_template import replace_template
from sprat.export.write.naming import ModelName
from sprat.export.write.rounding import Rounding
from sprat.export.write.tokenizer_files import tokenizer_texts
from sprat.quant.recipe import KEEP, Recipe
from sprat.runtime.files.bundle import PruningReport, QualityReport
from sprat.runtime.generate.sampling_defaults import (
    metadata_from_sampling,
    sampling_from_config,
    sampling_from_metadata,
)
from sprat.runtime.tokenizer.hf_files import read_generation_config
from sprat.text import human_bytes

__all__ = ["PreparedExport", "lay_out", "prepare"]

_FILE_SUFFIXES = (".gguf", ".onnx", ".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedExport:
    """Everything that determines the files of a bundle; no weight was read.

    Attributes:
        checkpoint: the source.
        recipe: the format of every tensor.
        plan: for the device, if one was given.
        tokenizer: the ``tokenizer.*`` keys of a GGUF.
        artifacts: format -> its files, laid out.
        texts: name -> contents of the tokenizer's files.
        notes: what the user may want to choose otherwise.
        quality: of a calibrated export, how formats and codes were chosen.
        pruning: of an export with fewer experts, which were kept.
    """

    checkpoint: Checkpoint
    recipe: Recipe
    plan: Plan | None
    tokenizer: Mapping[str, Any]
    artifacts: Mapping[str, ArtifactWriter]
    texts: Mapping[str, bytes]
    notes: tuple[str, ...]
    quality: QualityReport | None = None
    pruning: PruningReport | None = None


def prepare(source: str | os.PathLike[str], out: Path, options: ExportOptions) -> PreparedExport:
    """Open ``source``, choose the formats and lay out all files.

    Raises:
        InputError: the source, ``out``, the device, a format or a rule is invalid, or the model does not fit.
    """
    if out.suffix in _FILE_SUFFIXES and not out.is_dir():
        raise InputError(
            f"{out}: an export writes a folder, in which the model's file gets its own name; give the folder's name, "
            f"for example {out.with_suffix('')} (`sprat quantize` writes a single file from a GGUF)"
        )
    checkpoint = Checkpoint.open(source, ignore_fields=options.ignore_config_fields, adapters=options.adapters)
    if options.prune_experts is not None:
        checkpoint = provisional(checkpoint, options.prune_experts)
    recipe, plan, notes = choose_recipe(checkpoint, options)
    _check_rules(recipe, checkpoint)
    tokenizer = _tokenizer_keys(checkpoint, options.chat_template)
    artifacts = lay_out(checkpoint, recipe, tokenizer, options)
    texts = tokenizer_texts(checkpoint, tokenizer, complete="onnx" in artifacts)
    return PreparedExport(
        checkpoint=checkpoint,
        recipe=recipe,
        plan=plan,
        tokenizer=tokenizer,
        artifacts=artifacts,
        texts=texts,
        notes=(*notes, *_about_growth(checkpoint, recipe, artifacts)),
    )


def _check_rules(recipe: Recipe, checkpoint: Checkpoint) -> None:
    if unused := recipe.unused_rules(checkpoint.names()):
        raise FormatError(
            f"--tensor {unused[0]}: matches no tensor that can be quantized; `sprat inspect {checkpoint.path}` lists "
            "their names, and norms, routers and biases stay in F32"
        )


def _about_growth(checkpoint: Checkpoint, recipe: Recipe, artifacts: Mapping[str, ArtifactWriter]) -> list[str]:
    """A quantized GGUF that becomes larger gains nothing: its weights keep the error that they have."""
    before = sum(file.nbytes for file in checkpoint.files)
    if not (checkpoint.metadata and checkpoint.quantized_warnings) or recipe.name == KEEP or "gguf" not in artifacts:
        return []
    after = sum(artifacts["gguf"].file_sizes.values())
    if after <= before:
        return []
    return [
        f"the file grows from {human_bytes(before)} to {human_bytes(after)} and is no more accurate than its quantized "
        "source: --quant keep leaves the tensors as they are"
    ]


def _tokenizer_keys(checkpoint: Checkpoint, chat_template: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Tokenizer, chat template and sampling parameters as GGUF keys."""
    keys = _source_tokenizer_keys(checkpoint)
    return keys if chat_template is None else replace_template(keys, chat_template)


def _source_tokenizer_keys(checkpoint: Checkpoint) -> dict[str, Any]:
    """The keys of the source: converted from a folder's files, or copied from a GGUF."""
    if checkpoint.path.is_dir():
        sampling = sampling_from_config(
            read_generation_config(checkpoint.path), str(checkpoint.path / "generation_config.json")
        )
        return {**metadata_from_sampling(sampling), **tokenizer_metadata(checkpoint.path, checkpoint.spec.vocab_size)}
    sampling = sampling_from_metadata(checkpoint.metadata)
    return {**metadata_from_sampling(sampling), **valid_keys(checkpoint.metadata)}


def lay_out(
    checkpoint: Checkpoint,
    recipe: Recipe,
    tokenizer: Mapping[str, Any],
    options: ExportOptions,
    rounding: Rounding | None = None,
) -> dict[str, ArtifactWriter]:
    """The files of every wanted format.

    Raises:
        InputError: no format, an unknown one, or an empty name.
    """
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
        found = ModelName.of(identity(checkpoint), checkpoint.metadata, shapes)
        return found.sized(shapes) if checkpoint.experts else found
    if not name.strip():
        raise InputError("--name is empty; expected a name such as Name-7B-Chat")
    return ModelName.parse(name, shapes)
