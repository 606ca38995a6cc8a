"""A prepared export with formats and codes by :mod:`sprat.export.quality`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sprat.errors import InputError
from sprat.export.artifacts import ArtifactWriter
from sprat.export.options import ExportOptions
from sprat.export.prepare import PreparedExport, lay_out
from sprat.export.quality.budget import Tensors
from sprat.export.quality.fast import fast_allocation, fast_recipe
from sprat.export.quality.fitted import fitted_mix
from sprat.export.quality.options import QualityOptions, Target
from sprat.export.quality.plan import QualityPlanner
from sprat.export.quality.timing import QualityTime
from sprat.progress import Progress, ReportProgress
from sprat.quant.recipe import KEEP, Recipe
from sprat.runtime.memory.footprint import planned_footprint
from sprat.text import format_number

__all__ = ["calibrate", "calibration_digest", "is_calibrated", "quality_seconds", "wanted_quality", "with_fast_formats"]

_ONNX_BLOCK = 32
_OPEN = "int4"  # the recipe whose name promises bytes, not formats


def is_calibrated(prepared: PreparedExport, options: ExportOptions) -> bool:
    """Whether formats are allocated."""
    return wanted_quality(prepared, options).level != "none"


def wanted_quality(prepared: PreparedExport, options: ExportOptions) -> QualityOptions:
    """The quality that applies.

    Where nothing was, a GGUF in int4 is made with ``fast``, in as many bytes: int4 is our own name for about 4 bits,
    while a name such as q4_0 or q4_k_m says which formats a file has, and int8 gains little. With a quality but no
    size, the bytes are those that stay in the device's memory where the recipe's do not.
    """
    wanted, plan = options.calibrated, prepared.plan
    if wanted.level == "none" and options.quality is None:
        is_open = prepared.recipe.name == _OPEN and list(options.formats) == ["gguf"]
        return replace(wanted, level="fast") if is_open and _tensors(prepared).choices else wanted
    if wanted.level == "none" or plan is None or plan.fits or wanted.target != Target():
        return wanted
    fitted = fitted_mix(prepared.checkpoint.spec, prepared.recipe, plan)
    return replace(wanted, target=Target(file_bytes=fitted.footprint.weight_bytes)) if fitted else wanted


def calibration_digest(prepared: PreparedExport, options: ExportOptions) -> str:
    """SHA-256 of everything that decides formats and codes; the same before and after :func:`calibrate`.

    Raises:
        InputError: as :func:`calibrate`.
    """
    if prepared.quality is not None:
        return prepared.quality.digest
    return _planner(prepared, options).digest()


def calibrate(prepared: PreparedExport, options: ExportOptions, progress: ReportProgress) -> PreparedExport:
    """Choose formats and codes, and lay the files out again.

    Raises:
        InputError: the options do not go with a calibrated export, no file of the wanted size exists, or the model's
            text side cannot be read.
    """
    planner = _planner(prepared, options)
    level = planner.options.level
    if level != "fast":  # which takes hardly longer than this estimate
        said = f"--quality {level}: {planner.expected_time().text()}"
        progress(Progress(0, 1, "reading the source", note=said))
    prepared.checkpoint.verify_complete(progress)
    found = planner.plan(progress)
    artifacts = lay_out(prepared.checkpoint, found.recipe, prepared.tokenizer, options, found.rounding)
    laid_out = _with_formats(prepared, found.recipe, artifacts)
    return replace(laid_out, quality=found.report)


def quality_seconds(prepared: PreparedExport, options: ExportOptions) -> QualityTime:
    """Predicted time of the level on this machine; a layer of the source is timed.

    Raises:
        InputError: as :func:`calibrate`.
    """
    return _planner(prepared, options).expected_time()


def _planner(prepared: PreparedExport, options: ExportOptions) -> QualityPlanner:
    wanted = wanted_quality(prepared, options)
    _check(prepared, options, wanted.level)

    def file_size(recipe: Recipe) -> int:
        return _file_size(prepared, recipe, options)

    return QualityPlanner(prepared.checkpoint, prepared.recipe, wanted, prepared.tokenizer, file_size)


def with_fast_formats(prepared: PreparedExport, options: ExportOptions) -> PreparedExport:
    """The layout that :func:`calibrate` makes with ``fast``, whose formats depend on no weight.

    Raises:
        InputError: as :func:`calibrate`.
    """
    wanted = wanted_quality(prepared, options)
    _check(prepared, options, wanted.level)
    checkpoint, tensors = prepared.checkpoint, _tensors(prepared, wanted.file_format)

    def file_size(recipe: Recipe) -> int:
        return _file_size(prepared, recipe, options)

    found = fast_allocation(checkpoint.spec, tensors, prepared.recipe, wanted, file_size)
    recipe = fast_recipe(found, tensors, prepared.recipe, wanted)
    return _with_formats(prepared, recipe, lay_out(checkpoint, recipe, prepared.tokenizer, options))


def _tensors(prepared: PreparedExport, file_format: str = "gguf") -> Tensors:
    return Tensors.of(prepared.checkpoint.shapes, prepared.recipe, file_format)


def _file_size(prepared: PreparedExport, recipe: Recipe, options: ExportOptions) -> int:
    (artifact,) = lay_out(prepared.checkpoint, recipe, prepared.tokenizer, options).values()
    return sum(artifact.file_sizes.values())


def _with_formats(prepared: PreparedExport, recipe: Recipe, artifacts: Mapping[str, ArtifactWriter]) -> PreparedExport:
    """The allocated formats, the device's plan for them, and their speed there."""
    found = replace(prepared, recipe=recipe, artifacts=artifacts)
    if prepared.plan is None:
        return found
    before, spec = prepared.plan.footprint, prepared.checkpoint.spec
    footprint = planned_footprint(spec, recipe, context=before.context).of_batch(before.batch)
    plan = replace(prepared.plan, footprint=footprint)
    speed = plan.prediction.decode_tokens_per_s if plan.prediction else None
    said = [f"predicted with these formats on {plan.profile.name}: {format_number(speed)} tokens/s"] if speed else []
    return replace(found, plan=plan, notes=(*prepared.notes, *said))


def _check(prepared: PreparedExport, options: ExportOptions, level: str) -> None:
    if list(options.formats) not in (["gguf"], ["onnx"]) or prepared.recipe.name == KEEP:
        raise InputError(
            f"--quality {level} writes one file with formats of its own; give one --format, and omit --quant keep, or "
            "choose --quality none"
        )
    if list(options.formats) == ["onnx"] and (options.portable or options.block_size != _ONNX_BLOCK):
        raise InputError(
            f"--quality {level} rounds ONNX weights in blocks of {_ONNX_BLOCK} for contrib operators; omit --portable "
            "and --block-size, or choose --quality none"
        )
