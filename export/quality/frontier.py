"""Calibrated files of many sizes, and llama-quantize's of the same sizes, scored on one text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sprat.arrays import I32Array
from sprat.devices.plan.plan import Plan
from sprat.devices.profile import DeviceProfile
from sprat.devices.report.figures.frontier import FrontierPoint
from sprat.export.quality.budget import Tensors, allocate_bytes, tensor_bytes
from sprat.export.quality.candidates import round_all
from sprat.export.quality.llama_quantize import llama_quantize
from sprat.export.quality.measuring.layer_pass import LayerPass, Replaced
from sprat.export.quality.measuring.measurements import Measurements
from sprat.export.quality.measuring.score import Score, score
from sprat.export.source.checkpoint import Checkpoint
from sprat.progress import ReportProgress
from sprat.quant.recipe import Recipe
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.memory.footprint import footprint_of_sizes
from sprat.runtime.weights import WeightSource

__all__ = ["OURS", "THEIRS", "FrontierModel", "measure_frontier"]

OURS, THEIRS = "sprat", "llama-quantize"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierModel:
    """The source, its measurements and texts, from which the files are made.

    Attributes:
        checkpoint: the source.
        measured: its measurements.
        sequences: the calibration text.
        held_out: the text that files are scored on.
        unquantized: a GGUF of the source for llama-quantize, aligned to 32 bytes; ``None`` leaves its files out.
        folder: for llama-quantize's files.
    """

    checkpoint: Checkpoint
    measured: Measurements
    sequences: Sequence[I32Array]
    held_out: Sequence[I32Array]
    unquantized: Path | None
    folder: Path


@dataclass(frozen=True, slots=True)
class _File:
    """Weights, and the bytes and the block format of each tensor in a file of them."""

    weights: WeightSource
    sizes: Mapping[str, int]
    formats: Mapping[str, str]


def measure_frontier(
    model: FrontierModel,
    recipes: Mapping[str, Recipe],
    step: str,
    devices: Sequence[DeviceProfile],
    report: ReportProgress,
) -> list[FrontierPoint]:
    """A point per maker and mix.

    Args:
        model: the model.
        recipes: mix -> recipe, whose bytes a file may take.
        step: of rounding, of :data:`~sprat.export.quality.candidates.STEPS`.
        devices: for which the speed of decoding is predicted.
        report: called for each tensor that is rounded.
    """
    theirs = {(THEIRS, mix): _theirs(model, mix) for mix in recipes if model.unquantized}
    files = {
        (OURS, mix): _ours(model, recipe, theirs.get((THEIRS, mix)), step, report) for mix, recipe in recipes.items()
    }
    files |= theirs
    layers = LayerPass(model.checkpoint.spec, model.checkpoint, model.held_out)
    scores = score(layers, {" ".join(key): file.weights for key, file in files.items()})
    return [_point(model, maker, mix, file, scores[f"{maker} {mix}"], devices) for (maker, mix), file in files.items()]


def _point(
    model: FrontierModel, maker: str, mix: str, file: _File, found: Score, devices: Sequence[DeviceProfile]
) -> FrontierPoint:
    n_weights = sum(math.prod(tensor.shape) for tensor in model.checkpoint.tensors.values())
    return FrontierPoint(
        maker=maker,
        mix=mix,
        nbytes=sum(file.sizes.values()),
        bits_per_weight=8 * sum(file.sizes.values()) / n_weights,
        kld=found.mean,
        kld_error=found.error,
        same_top=float(found.same_top.mean()),
        tokens_per_s=dict(_speeds(model, file, devices)),
    )


def _ours(model: FrontierModel, recipe: Recipe, theirs: _File | None, step: str, report: ReportProgress) -> _File:
    """The source with all tensors rounded to the bytes of llama-quantize's file, or of ``recipe`` without one."""
    assert model.measured.head_moments is not None, "measure() sets them"
    shapes = model.checkpoint.shapes
    tensors = Tensors.of(shapes, recipe)
    recipe_bytes = sum(tensor_bytes(shape, recipe.choose(name, shape).format) for name, shape in shapes.items())
    budget = sum(theirs.sizes.values()) if theirs else recipe_bytes
    found = allocate_bytes(tensors, lambda name, format: model.measured.cost(name, format.name), budget)
    rounded = round_all(
        model.checkpoint.spec,
        model.checkpoint,
        model.sequences,
        model.measured.head_moments,
        {name: found.formats[name] for name in tensors.choices},
        step,
        report,
    )
    sizes = {name: tensor_bytes(shape, found.formats[name]) for name, shape in shapes.items()}
    return _File(Replaced(model.checkpoint, rounded), sizes, {name: each.name for name, each in found.formats.items()})


def _theirs(model: FrontierModel, mix: str) -> _File:
    assert model.unquantized is not None, "the caller checked"
    imatrix = {name: rows for name, rows in model.measured.mean_squares.items() if name.startswith("blk.")}
    file = GGUFFile.open(llama_quantize(model.unquantized, model.folder / f"{mix}.gguf", mix, imatrix))
    sizes = {name: info.nbytes for name, info in file.tensors.items()}
    return _File(file, sizes, {name: info.type_name for name, info in file.tensors.items()})


def _speeds(model: FrontierModel, file: _File, devices: Sequence[DeviceProfile]) -> Iterator[tuple[str, float]]:
    footprint = footprint_of_sizes(model.checkpoint.spec, file.sizes, file.formats, quant="")
    for profile in devices:
        prediction = Plan(profile, footprint, profile.usable_bytes).prediction
        if prediction:
            yield profile.name, prediction.decode_tokens_per_s
