"""The GGUF of a checkpoint: its keys, the format of every tensor, and the weights streamed through the quantizer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.arrays import U8Array
from sprat.export.gguf.layout import Layout, PlannedTensor, plan_layout
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.repack import repack
from sprat.export.write.naming import ModelName, model_card
from sprat.export.write.writer import WrittenFile, check_room, write_file
from sprat.progress import ReportProgress
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.gguf_keys import metadata_from_spec
from sprat.runtime.arch.tensors import expected_tensors, tensor_role
from sprat.runtime.files.bundle import TensorGroup
from sprat.runtime.files.gguf_header import DEFAULT_ALIGNMENT

__all__ = ["QUANTIZATION_VERSION", "GGUFArtifact", "group_tensors", "plan_gguf"]

QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION: the layout of its blocks
_PAGE = 4096

# Keys of how a file is stored: a copy that is stored differently has its own.
_OF_THE_ENCODING = {"general.alignment", "general.file_type", "general.quantization_version"}


@dataclass(frozen=True, slots=True)
class GGUFArtifact:
    """A GGUF that is planned to its last byte."""

    file_name: str
    layout: Layout
    groups: tuple[TensorGroup, ...]
    checkpoint: Checkpoint

    @property
    def plan(self) -> str:
        """Digest of everything that decides the file but the weights."""
        return self.layout.fingerprint()

    def check_room(self, folder: Path) -> None:
        """Make sure that it fits on the disk; see :func:`~sprat.export.write.writer.check_room`."""
        check_room(folder / self.file_name, self.layout)

    def write(self, folder: Path, progress: ReportProgress) -> tuple[WrittenFile, ...]:
        """Write it, or finish writing it; see :func:`~sprat.export.write.writer.write_file`."""
        file = write_file(
            folder / self.file_name,
            self.layout,
            self._pack,
            source=self.checkpoint.hash(),
            check_source=self.checkpoint.check_unchanged,
            progress=progress,
            keep_journal=True,
        )
        return (file,)

    def _pack(self, planned: PlannedTensor) -> Iterator[U8Array]:
        return repack(self.checkpoint.tensors[planned.name], planned.format)


def plan_gguf(
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    name: ModelName,
    tokenizer: Mapping[str, Any],
    align: int | None = None,
) -> GGUFArtifact:
    """Plan the GGUF of ``checkpoint``.

    Args:
        checkpoint: an opened source.
        recipe: the format of every tensor.
        name: the parts of the model's name.
        tokenizer: the ``tokenizer.*`` keys.
        align: bytes; by default a page for mixtures, so that every expert can be read on its own, and 32 otherwise.

    Raises:
        ConfigError: llama.cpp could not run the model.
        ExportError: something that GGUF cannot hold.
    """
    shapes = {name: shape for name, shape in expected_tensors(checkpoint.spec).items() if name in checkpoint}
    planned = [PlannedTensor(name, shape, recipe.choose(name, shape).format) for name, shape in shapes.items()]
    alignment = align or (_PAGE if checkpoint.spec.moe else DEFAULT_ALIGNMENT)
    keys = {**_general_keys(checkpoint, recipe, name), **metadata_from_spec(checkpoint.spec), **tokenizer}
    layout = plan_layout(keys, planned, alignment=alignment)
    return GGUFArtifact(name.file_name(recipe.default.name), layout, group_tensors(recipe, shapes), checkpoint)


def group_tensors(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]) -> tuple[TensorGroup, ...]:
    """Tensors by role and format, in file order: what a recipe came to."""
    groups: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for name, shape in shapes.items():
        choice = recipe.choose(name, shape)
        size = math.prod(shape[:-1]) * choice.format.row_bytes(shape[-1])
        groups.setdefault((tensor_role(name), choice.format.name, choice.wanted.name), []).append(
            (math.prod(shape), size)
        )
    return tuple(
        TensorGroup(
            role=role,
            format=format_name,
            wanted=wanted,
            n_tensors=len(sizes),
            n_weights=sum(n_weights for n_weights, _ in sizes),
            size_bytes=sum(size for _, size in sizes),
        )
        for (role, format_name, wanted), sizes in groups.items()
    )


def _general_keys(checkpoint: Checkpoint, recipe: Recipe, name: ModelName) -> dict[str, Any]:
    of_the_source = {
        key: value
        for key, value in checkpoint.metadata.items()
        if key.startswith("general.") and key not in _OF_THE_ENCODING
    }
    return {
        "general.architecture": str(checkpoint.spec.architecture),
        "general.type": "model",
        **of_the_source,
        **model_card(checkpoint.path),
        **name.metadata(),
        "general.file_type": recipe.default.file_type,
        "general.quantization_version": QUANTIZATION_VERSION,
    }
