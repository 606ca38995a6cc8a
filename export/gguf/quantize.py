"""Quantize a GGUF into another: the same keys and tensors, other block formats."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sprat.errors import CheckpointError, ExportError, FormatError
from sprat.export.gguf.artifact import QUANTIZATION_VERSION, main_format, tensor_sizes
from sprat.export.gguf.layout import TensorEntry, named_layouts
from sprat.export.source.file import SourceFile
from sprat.export.source.gguf_tensors import gguf_tensors, modern_layout
from sprat.export.source.range_check import check_range
from sprat.export.source.repack import repack
from sprat.export.source.scan import FileScan, scan_files
from sprat.export.write.errors import export_errors, output_path
from sprat.export.write.tensor_groups import group_tensors
from sprat.export.write.writer import WrittenFile, is_kept, refuse_strangers, write_files
from sprat.progress import ReportProgress, no_progress
from sprat.quant.formats import BlockFormat
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.model_shape import shape_of_keys
from sprat.runtime.files.bundle import TensorGroup
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_header import ValueType
from sprat.runtime.files.shape_checks import summarize
from sprat.runtime.memory.amount import parse_memory

__all__ = ["QuantizeResult", "quantize", "typed_value"]

_NUMPY_TYPES = {
    ValueType.UINT8: np.uint8,
    ValueType.INT8: np.int8,
    ValueType.UINT16: np.uint16,
    ValueType.INT16: np.int16,
    ValueType.UINT32: np.uint32,
    ValueType.INT32: np.int32,
    ValueType.FLOAT32: np.float32,
    ValueType.UINT64: np.uint64,
    ValueType.INT64: np.int64,
    ValueType.FLOAT64: np.float64,
}


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """The written file, and the formats of its tensors."""

    file: WrittenFile  # of a split model the first part
    groups: tuple[TensorGroup, ...]
    source_bytes: int
    notes: tuple[str, ...]
    files: tuple[WrittenFile, ...]  # all parts

    @property
    def fallbacks(self) -> tuple[TensorGroup, ...]:
        """Groups whose rows do not divide into blocks of the wanted format."""
        return tuple(group for group in self.groups if group.format != group.wanted)


def quantize(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    quant: str = "int4",
    tensor_rules: Sequence[str] = (),
    align: int | None = None,
    split: int | str | None = None,
    force: bool = False,
    progress: ReportProgress = no_progress,
) -> QuantizeResult:
    """Write the GGUF ``source`` with the formats of a recipe; all keys are copied except those about the encoding.

    Args:
        source: a GGUF file of any architecture, in any format that ggml knows; of a split model any part.
        out: the new file, in a folder that is made where it is missing; after an interruption the same call continues.
        quant: ``int4``, ``int8``, a mix such as ``q4_k_m`` or a block format.
        tensor_rules: formats for some tensors, ``"ffn_down_exps=q5_0"``; later ones win.
        align: alignment of the tensors in bytes; by default the source's.
        split: split ``out`` into files of at most this size, in bytes or as ``"4GB"``, if it is larger.
        force: replace ``out`` if it exists.
        progress: called after each chunk that is read or written.

    Raises:
        InputError: the source is malformed, cannot be read or has weights that are not finite, a format or rule is
            unknown, or a weight exceeds the range of its format.
        ExportError: ``out`` exists or cannot be written, or the source changed during the export.
    """
    source, out = Path(source), output_path(out)
    SourceFile.find(source)  # of a path that is no file, the message is about sources
    with GGUFFile.open(source) as gguf:
        files, stored = gguf_tensors(gguf)
        tensors, keys = modern_layout(gguf, stored)
        recipe = _recipe(quant, tensor_rules, gguf, tensors)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        entries = [TensorEntry(name, shape, recipe.choose(name, shape).format) for name, shape in shapes.items()]
        split_bytes = None if split is None else parse_memory(split, "split")
        sizes = list(tensor_sizes(recipe, shapes))
        keys = _metadata(gguf, recipe, main_format(recipe, sizes)) | keys
        layouts = named_layouts(out, keys, entries, align or gguf.alignment, split_bytes)
        _refuse_to_replace(files, layouts, force=force)

    scans = scan_files({file: [part for part in stored.values() if part.file is file] for file in files}, progress)
    bounds = _finite_bounds(source, scans.values())
    formats = ((tensors[entry.name], entry.format) for entry in entries)
    check_range(source, formats, lambda tensor: bounds[tensor.name])
    with export_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    written = write_files(
        layouts,
        lambda entry: repack(tensors[entry.name], entry.format),
        source=" ".join(scan.sha256 for scan in scans.values()),
        check_source=lambda: _check_unchanged(files),
        progress=progress,
    )
    notes = tuple(file.note for file in written if file.note)
    groups = group_tensors(sizes)
    return QuantizeResult(written[0], groups, sum(file.nbytes for file in files), notes, written)


def _recipe(quant: str, rules: Sequence[str], gguf: GGUFFile, names: Collection[str]) -> Recipe:
    tied = "output.weight" not in names
    recipe = Recipe.named(quant, tied_embeddings=tied, model=shape_of_keys(gguf.metadata)).with_rules(rules)
    if unused := recipe.unused_rules(names):
        raise FormatError(f"--tensor {unused[0]}: matches no tensor that can be quantized; see `sprat inspect`")
    return recipe


def _refuse_to_replace(sources: Iterable[SourceFile], outs: Iterable[Path], *, force: bool) -> None:
    """Raise ExportError for a file that exists or is in the way, except those that an interrupted call left."""
    outs = list(outs)
    refuse_strangers(outs)
    for out in (path for path in outs if os.path.lexists(path)):
        if out.is_dir():
            raise ExportError(f"{out}: is a folder; give the name of a file, for example {out / 'model.gguf'}")
        if out.exists() and any(out.samefile(source.path) for source in sources):
            raise ExportError(f"{out}: is the source itself; choose another name")
        if not force and not is_kept(out):
            raise ExportError(f"{out}: exists; choose another name, or replace it with --force")


def _finite_bounds(source: Path, scans: Iterable[FileScan]) -> dict[str, float]:
    """The largest magnitude of every tensor."""
    nonfinite = [name for scan in scans for name in scan.nonfinite]
    if nonfinite:
        raise CheckpointError(
            f"{source}: {len(nonfinite)} tensors with NaN or infinite weights: "
            f"{summarize(map(repr, nonfinite))}; download or export the file again"
        )
    return {name: bound for scan in scans for name, bound in scan.bounds.items()}


def _check_unchanged(files: Iterable[SourceFile]) -> None:
    for file in files:
        file.check_unchanged()


def _metadata(gguf: GGUFFile, recipe: Recipe, main: BlockFormat) -> dict[str, Any]:
    kept = {key: typed_value(value, gguf.value_types[key]) for key, value in gguf.metadata.items()}
    kept.pop("general.alignment", None)
    return kept | {
        "general.file_type": recipe.file_type(main),
        "general.quantization_version": QUANTIZATION_VERSION,
    }


def typed_value(value: Any, types: tuple[ValueType, ...]) -> Any:
    """``value`` as a NumPy scalar of its GGUF type, so that it is written with that type again."""
    scalar = _NUMPY_TYPES.get(types[0])
    return scalar(value) if scalar else value
