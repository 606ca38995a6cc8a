"""``sprat export --dry-run``: sizes, free space and time of an export that is not made."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from sprat.devices.plan.plan import Plan
from sprat.errors import ExportError
from sprat.export.calibrated import quality_seconds, wanted_quality, with_fast_formats
from sprat.export.manifest import recipe_name
from sprat.export.options import ExportKeywords, ExportOptions
from sprat.export.prepare import PreparedExport, prepare
from sprat.export.quality.budget import Tensors, formats_bytes, outermost
from sprat.export.quality.options import QualityOptions
from sprat.export.quality.timing import QualityTime
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.tensor import SourceTensor
from sprat.export.write.bundle import existing_manifest
from sprat.export.write.writer import free_bytes
from sprat.quant.convert import quantize_from
from sprat.quant.formats import BlockFormat
from sprat.runtime.files.bundle import TensorGroup
from sprat.text import human_bytes

__all__ = ["ExportEstimate", "estimate_export"]

_SAMPLE_BYTES = 4 << 20  # of every conversion, and of the source for its digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportEstimate:
    """Files and sizes of an export, before it is written.

    Attributes:
        path: the bundle's folder.
        recipe: the recipe, with the user's rules.
        files: name -> bytes, the manifest left out.
        tensor_groups: formats and sizes by role, of the first artifact.
        size_bytes: sum of all files.
        source_bytes: files that are read.
        free_bytes: on the disk of ``path``.
        seconds: about, on this machine: two passes over the source, of which a sample was timed; the time that a slow
            disk adds is not in it.
        level: of quality: ``none``, ``fast``, ``balanced`` or ``best``.
        quality: the share of ``seconds`` that the level takes, by part; ``None`` with ``none``.
        plan: for the device, if one was given.
        notes: what the user may want to choose otherwise.
    """

    path: Path
    recipe: str
    files: Mapping[str, int]
    tensor_groups: tuple[TensorGroup, ...]
    size_bytes: int
    source_bytes: int
    free_bytes: int
    seconds: float
    level: str
    quality: QualityTime | None
    plan: Plan | None
    notes: tuple[str, ...]

    @property
    def missing_bytes(self) -> int:
        """Bytes that must be freed first; 0 if the files fit."""
        return max(self.size_bytes - self.free_bytes, 0)


def estimate_export(
    source: str | os.PathLike[str], out: str | os.PathLike[str], **keywords: Unpack[ExportKeywords]
) -> ExportEstimate:
    """Sizes, free space and time of :func:`sprat.export.pipeline.export` with the same arguments; nothing is written.

    Raises:
        InputError: as of the export, apart from weights that are NaN, infinite or out of range: they are not read.
        ExportError: ``out`` exists and is not a bundle, or its folder cannot be written.
    """
    out, options = Path(out), ExportOptions.of(keywords)
    _check_writable(out)
    prepared = prepare(source, out, options)
    prepared.checkpoint.check_headers()
    wanted = wanted_quality(prepared, options)
    quality = quality_seconds(prepared, options) if wanted.level != "none" else None
    if wanted.level == "fast":
        prepared = with_fast_formats(prepared, options)
    sizes = [artifact.file_sizes for artifact in prepared.artifacts.values()]
    files = {name: size for found in sizes for name, size in found.items()}
    files |= {name: len(text) for name, text in sorted(prepared.texts.items())}
    exists = existing_manifest(out) is not None and not options.force
    return ExportEstimate(
        path=out,
        recipe=recipe_name(prepared.recipe),
        files=files,
        tensor_groups=next(iter(prepared.artifacts.values())).groups,
        size_bytes=sum(files.values()),
        source_bytes=sum(file.nbytes for file in prepared.checkpoint.files),
        free_bytes=free_bytes(out),
        seconds=_seconds(prepared) + (quality.total_s if quality else 0.0),
        level=wanted.level,
        quality=quality,
        plan=prepared.plan,
        notes=(
            *prepared.notes,
            *([f"{out} exists: an export of another recipe needs --force"] if exists else []),
            *_about_calibration(prepared, wanted),
        ),
    )


def _check_writable(out: Path) -> None:
    nearest = next(path for path in out.absolute().parents if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise ExportError(f"{out}: {nearest} is not a folder that can be written; choose another place")


def _about_calibration(prepared: PreparedExport, wanted: QualityOptions) -> list[str]:
    """Measured costs decide formats, and an estimate measures none."""
    if wanted.level in ("none", "fast"):
        return []
    target = wanted.target
    n_weights = sum(group.n_weights for group in next(iter(prepared.artifacts.values())).groups)
    limit = target.file_bytes or (target.bits_per_weight and int(target.bits_per_weight * n_weights / 8))
    tensors = Tensors.of(prepared.checkpoint.shapes, prepared.recipe, wanted.file_format)
    largest = formats_bytes(tensors, outermost(tensors, max))  # more is not needed for any size
    size = f"will take at most about {human_bytes(min(limit, largest))}" if limit else "may differ in size"
    return [
        f"--quality {wanted.level} chooses formats during the export: shown are those of "
        f"{recipe_name(prepared.recipe)}, the model's file {size}"
    ]


def _seconds(prepared: PreparedExport) -> float:
    conversions = (pair for artifact in prepared.artifacts.values() for pair in artifact.conversions())
    return _digest_seconds(prepared.checkpoint) + _conversion_seconds(conversions)


def _digest_seconds(checkpoint: Checkpoint) -> float:
    """The first pass hashes the source, which takes longer than reading and checking it."""
    largest = max(checkpoint.files, key=lambda file: file.nbytes)
    started = time.perf_counter()
    sample = largest.read(0, min(_SAMPLE_BYTES, largest.nbytes))
    hashlib.sha256(sample.data).digest()
    spent = time.perf_counter() - started
    return spent * sum(file.nbytes for file in checkpoint.files) / sample.nbytes


def _conversion_seconds(conversions: Iterable[tuple[SourceTensor, BlockFormat]]) -> float:
    """The second pass reads and converts; one chunk of the largest tensor of each pair of formats is timed."""
    largest: dict[tuple[str, str], tuple[SourceTensor, BlockFormat]] = {}
    n_weights: Counter[tuple[str, str]] = Counter()
    for tensor, target in conversions:
        kind = tensor.format.name, target.name
        n_weights[kind] += math.prod(tensor.shape)
        if kind not in largest or math.prod(tensor.shape) > math.prod(largest[kind][0].shape):
            largest[kind] = tensor, target
    return sum(n_weights[kind] * _seconds_per_weight(*pair) for kind, pair in largest.items())


def _seconds_per_weight(tensor: SourceTensor, target: BlockFormat) -> float:
    started = time.perf_counter()
    chunk = next(tensor.chunks(_SAMPLE_BYTES))
    if tensor.format is not target:
        quantize_from(chunk, tensor.format, target)
    spent = time.perf_counter() - started
    return spent / (len(chunk) * tensor.shape[-1])
