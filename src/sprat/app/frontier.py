"""``sprat frontier``: KL divergence of files by size."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.app.model_reference import find_source
from sprat.arrays import I32Array
from sprat.boundary import public_call
from sprat.devices.profile import find_profile
from sprat.devices.report.figures.frontier import FrontierPoint, frontier_figure
from sprat.devices.report.png import check_picture, write_picture
from sprat.errors import InputError, unknown_name
from sprat.export.calibration import calibration_sequences, evaluation_sequences, with_packaged
from sprat.export.gguf.tokenizer_keys import tokenizer_metadata
from sprat.export.pipeline import export
from sprat.export.quality.frontier import FrontierModel, measure_frontier
from sprat.export.quality.llama_quantize import FILE_TYPES, has_llama_quantize
from sprat.export.quality.plan import MAX_COMPARED, measure_source
from sprat.export.source.checkpoint import Checkpoint
from sprat.files import checked_path
from sprat.progress import ReportProgress, no_progress
from sprat.quant.recipe import recipe_names
from sprat.runtime.memory.footprint import planned_recipes

__all__ = ["DEFAULT_SIZES", "Frontier", "frontier"]

DEFAULT_SIZES = ("q3_k_m", "q4_0", "q4_k_m", "q5_k_m", "q6_k", "q8_0")
"""Mixes whose bytes the files have."""

_NO_PEER = "llama-quantize's files are left out: pip install 'sprat[llamacpp]' compares with them"
_STEPS = {"balanced": "feedback", "best": "descent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """Result of :func:`frontier`.

    Attributes:
        model: the source's name.
        points: the files.
        n_tokens: of the evaluation text.
        picture: the file that was written, if any.
        notes: what was left out.
    """

    model: str
    points: tuple[FrontierPoint, ...]
    n_tokens: int
    picture: Path | None
    notes: tuple[str, ...]


@public_call
def frontier(
    source: str | os.PathLike[str],
    *,
    sizes: Sequence[str] = DEFAULT_SIZES,
    devices: Sequence[str] = (),
    quality: str = "balanced",
    calibration: Sequence[str | os.PathLike[str]] = (),
    picture: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: ReportProgress = no_progress,
) -> Frontier:
    """Measure the divergence of calibrated files of several sizes, and of llama-quantize's files of the same sizes.

    Args:
        source: as of :func:`sprat.export`, with at most 500 million weights.
        sizes: mixes whose bytes the files have: ``"q4_k_m"``.
        devices: names of profiles for which the speed of decoding is predicted.
        quality: ``"balanced"`` or ``"best"``.
        calibration: text files to calibrate with, beside a share of the packaged text.
        picture: a ``.svg`` or ``.png`` file to draw.
        force: replace ``picture`` if it exists.
        progress: called for each tensor.

    Raises:
        InputError: the source, a size, a device or the quality cannot be used.
        BackendError: llama-quantize failed, or a PNG needs ``sprat[report]``.
    """
    path, drawn = find_source(source), None if picture is None else checked_path(picture, "picture")
    if drawn is not None:
        check_picture(drawn, force=force)
    _check(sizes, quality)
    profiles = [find_profile(name) for name in devices]
    checkpoint = Checkpoint.open(path)
    _check_size(checkpoint)
    tokenizer = checkpoint.metadata or tokenizer_metadata(checkpoint.path, checkpoint.spec.vocab_size)
    sequences, held_out = _calibration(tokenizer, calibration), evaluation_sequences(tokenizer)
    has_peer = has_llama_quantize()
    with tempfile.TemporaryDirectory(prefix="sprat-frontier-") as folder:
        model = FrontierModel(
            checkpoint=checkpoint,
            measured=measure_source(checkpoint, sequences, quality, progress),
            sequences=sequences,
            held_out=held_out,
            unquantized=_unquantized(path, Path(folder)) if has_peer else None,
            folder=Path(folder),
        )
        recipes = {size: planned_recipes(checkpoint.spec, size)[0] for size in sizes}
        points = measure_frontier(model, recipes, _STEPS[quality], profiles, progress)
    if drawn is not None:
        write_picture(frontier_figure(path.name, points), drawn, force=force)
    return Frontier(
        model=path.name,
        points=tuple(points),
        n_tokens=sum(map(len, held_out)),
        picture=drawn,
        notes=() if has_peer else (_NO_PEER,),
    )


def _calibration(tokenizer: Mapping[str, Any], texts: Sequence[str | os.PathLike[str]]) -> list[I32Array]:
    """Sequences to calibrate with: those of an export with the same texts."""
    sequences = calibration_sequences(tokenizer, [Path(text) for text in texts])
    return with_packaged(sequences, tokenizer) if texts else sequences


def _unquantized(path: Path, folder: Path) -> Path:
    """A GGUF that llama-quantize reads: it pads tensors to 32 bytes, whatever the file's alignment."""
    return export(path, folder / "unquantized", quant="bf16", align=32).bundle.artifact("gguf")


def _check(sizes: Sequence[str], quality: str) -> None:
    if not sizes:
        raise InputError("no size was given; expected mixes such as q4_k_m")
    for size in sizes:
        if size not in FILE_TYPES:
            known = [name for name in FILE_TYPES if name in recipe_names()]
            raise InputError(unknown_name("size", size, known))
    if quality not in _STEPS:
        raise InputError(unknown_name("quality", quality, _STEPS))


def _check_size(checkpoint: Checkpoint) -> None:
    n_weights = sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values())
    if n_weights > MAX_COMPARED:
        raise InputError(
            f"{checkpoint.path}: {n_weights / 1e6:,.0f}M weights, expected at most {MAX_COMPARED / 1e6:.0f}M: a "
            "frontier holds a file of every size in memory; sprat export --quality and sprat verify do single files"
        )
