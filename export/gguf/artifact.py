"""The GGUF of a checkpoint: metadata keys, the format of every tensor, weights streamed through the quantizer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.arrays import U8Array
from sprat.export.gguf.layout import GGUFLayout, TensorEntry, joint_digest, named_layouts
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.repack import repack
from sprat.export.source.tensor import SourceTensor
from sprat.export.write.naming import ModelName, model_card
from sprat.export.write.rounding import Rounding
from sprat.export.write.tensor_groups import TensorSize, group_tensors
from sprat.export.write.writer import WrittenFile, check_free_space, write_files
from sprat.progress import ReportProgress
from sprat.quant.formats import BlockFormat, get_format
from sprat.quant.recipe import KEEP, Recipe
from sprat.runtime.arch.gguf_keys import metadata_from_spec
from sprat.runtime.arch.tensors import expected_tensors, mtp_tensors
from sprat.runtime.files.bundle import TensorGroup
from sprat.runtime.files.gguf_header import DEFAULT_ALIGNMENT

__all__ = ["QUANTIZATION_VERSION", "GGUFArtifact", "gguf_artifact", "main_format", "tensor_sizes"]

QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION: the layout of ggml's blocks

# Keys about how a file is stored; they are not copied from the source.
_ENCODING_KEYS = {"general.alignment", "general.file_type", "general.quantization_version"}


@dataclass(frozen=True, slots=True)
class GGUFArtifact:
    """A GGUF with a complete layout, to be written; several files if it is split."""

    layouts: Mapping[str, GGUFLayout]  # file name -> layout
    groups: tuple[TensorGroup, ...]
    checkpoint: Checkpoint
    rounding: Rounding | None = None

    @property
    def layout_digest(self) -> str:
        """SHA-256 of everything that decides the file's bytes except the weights."""
        return joint_digest(self.layouts.values())

    @property
    def file_name(self) -> str:
        """Name of the file, of a split model that of the first part."""
        return next(iter(self.layouts))

    @property
    def requires(self) -> str:
        """Empty: no version of llama.cpp is known to be needed."""
        return ""

    def check_free_space(self, folder: Path) -> None:
        """Check that all parts fit on the disk; see :func:`~sprat.export.write.writer.check_free_space`."""
        check_free_space({folder / name: layout for name, layout in self.layouts.items()})

    def check_range(self) -> None:
        """Check that no weight exceeds the range of its format."""
        self.checkpoint.check_range(self.conversions())

    @property
    def file_sizes(self) -> dict[str, int]:
        """Name of every part -> bytes."""
        return {name: layout.nbytes for name, layout in self.layouts.items()}

    def conversions(self) -> Iterator[tuple[SourceTensor, BlockFormat]]:
        """Every tensor, and the format that it is written in."""
        placed = (placed.tensor for layout in self.layouts.values() for placed in layout.tensors)
        return ((self.checkpoint.tensors[entry.name], entry.format) for entry in placed)

    def write(self, folder: Path, progress: ReportProgress) -> tuple[WrittenFile, ...]:
        """Write the parts, or continue an interrupted write; see :func:`~sprat.export.write.writer.write_files`."""
        return write_files(
            {folder / name: layout for name, layout in self.layouts.items()},
            self._pack,
            source=self.checkpoint.content_hash() + (f" {self.rounding.digest}" if self.rounding else ""),
            check_source=self.checkpoint.check_unchanged,
            progress=progress,
            keep_journal=True,
        )

    def _pack(self, entry: TensorEntry) -> Iterator[U8Array]:
        if self.rounding and self.rounding.has(entry.name):
            return iter((self.rounding.round(entry.name, entry.format),))
        return repack(self.checkpoint.tensors[entry.name], entry.format)


def gguf_artifact(
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    name: ModelName,
    tokenizer: Mapping[str, Any],
    rounding: Rounding | None = None,
    align: int | None = None,
    split_bytes: int | None = None,
) -> GGUFArtifact:
    """Lay out the GGUF of ``checkpoint``; no weight is read.

    Args:
        checkpoint: an opened source.
        recipe: the format of every tensor.
        name: the parts of the model's name.
        tokenizer: the ``tokenizer.*`` keys.
        rounding: rounds tensors that are not rounded blindly.
        align: alignment of the tensors in bytes; by default GGUF's 32, which llama.cpp's tools expect.
        split_bytes: split the model into files of at most this size; by default it is one file.

    Raises:
        ConfigError: llama.cpp cannot run the model.
        ExportError: a key, a name or an alignment that GGUF does not allow.
    """
    known = expected_tensors(checkpoint.spec) | mtp_tensors(checkpoint.spec)
    shapes = {name: shape for name, shape in known.items() if name in checkpoint}
    entries = [TensorEntry(name, shape, recipe.choose(name, shape).format) for name, shape in shapes.items()]
    sizes = list(tensor_sizes(recipe, shapes))
    main = main_format(recipe, sizes)
    keys = {**_general_keys(checkpoint, recipe, main, name), **metadata_from_spec(checkpoint.spec), **tokenizer}
    alignment = align or DEFAULT_ALIGNMENT
    layouts = named_layouts(
        Path(name.file_name(_encoding(checkpoint, recipe, main))), keys, entries, alignment, split_bytes
    )
    groups = group_tensors(sizes)
    return GGUFArtifact({path.name: layout for path, layout in layouts.items()}, groups, checkpoint, rounding)


def tensor_sizes(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]) -> Iterable[TensorSize]:
    """The format and the size of every tensor under ``recipe``, in file order."""
    for name, shape in shapes.items():
        choice = recipe.choose(name, shape)
        nbytes = math.prod(shape[:-1]) * choice.format.row_bytes(shape[-1])
        yield TensorSize(name, choice.format.name, math.prod(shape), nbytes, choice.wanted.name)


def main_format(recipe: Recipe, sizes: Iterable[TensorSize]) -> BlockFormat:
    """The recipe's default format, or what most weights got in its place because their rows do not divide into blocks.

    Args:
        recipe: the formats that were wanted.
        sizes: those that the tensors have.
    """
    n_weights: Counter[str] = Counter()
    for tensor in sizes:
        if tensor.wanted == recipe.default.name:
            n_weights[tensor.format] += tensor.n_weights
    return get_format(n_weights.most_common(1)[0][0]) if n_weights else recipe.default


def _file_type(checkpoint: Checkpoint, recipe: Recipe, main: BlockFormat) -> int:
    """``general.file_type``, llama.cpp's name for a mix of formats; that of the source if its formats are kept."""
    source = checkpoint.metadata.get("general.file_type")
    return source if recipe.name == KEEP and isinstance(source, int) else recipe.file_type(main)


def _encoding(checkpoint: Checkpoint, recipe: Recipe, main: BlockFormat) -> str:
    """The formats in a file name: ``Q4_0``, or ``Q4_K_M`` of a source whose formats are kept."""
    if recipe.name != KEEP:
        return recipe.encoding(main)
    import gguf

    known: dict[int, str] = {int(kind): kind.name.removeprefix("MOSTLY_") for kind in gguf.LlamaFileType}
    return known.get(_file_type(checkpoint, recipe, main), main.name)


def _general_keys(checkpoint: Checkpoint, recipe: Recipe, main: BlockFormat, name: ModelName) -> dict[str, Any]:
    source_keys = {
        key: value
        for key, value in checkpoint.metadata.items()
        if key.startswith("general.") and key not in _ENCODING_KEYS
    }
    return {
        "general.architecture": str(checkpoint.spec.architecture),
        "general.type": "model",
        **source_keys,
        **model_card(checkpoint.path),
        **name.metadata(),
        "general.file_type": _file_type(checkpoint, recipe, main),
        "general.quantization_version": QUANTIZATION_VERSION,
    }
