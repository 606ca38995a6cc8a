"""A prepared export with formats and codes by :mod:`sprat.export.quality`."""

from __future__ import annotations

from dataclasses import replace

from sprat.devices.plan.plan import Plan
from sprat.errors import InputError
from sprat.export.options import ExportOptions
from sprat.export.prepare import PreparedExport, lay_out
from sprat.export.quality.fitted import fitted_mix
from sprat.export.quality.options import QualityOptions, Target
from sprat.export.quality.plan import plan_quality, quality_digest
from sprat.progress import ReportProgress
from sprat.quant.recipe import KEEP, Recipe
from sprat.runtime.memory.footprint import planned_footprint

__all__ = ["calibrate", "calibration_digest", "is_calibrated"]

_ONNX_BLOCK = 32


def is_calibrated(options: ExportOptions) -> bool:
    """Whether formats are allocated."""
    return options.calibrated.level != "none"


def calibration_digest(prepared: PreparedExport, options: ExportOptions) -> str:
    """SHA-256 of everything that decides formats and codes; the same before and after :func:`calibrate`.

    Raises:
        InputError: as :func:`calibrate`.
    """
    if prepared.quality is not None:
        return prepared.quality.digest
    _check(prepared, options)
    return quality_digest(prepared.checkpoint, prepared.recipe, _within_device(prepared, options), prepared.tokenizer)


def calibrate(prepared: PreparedExport, options: ExportOptions, progress: ReportProgress) -> PreparedExport:
    """Choose formats and codes, and lay the files out again.

    Raises:
        InputError: the options do not go with a calibrated export, no file of the wanted size exists, or the model's
            text side cannot be read.
    """
    _check(prepared, options)
    checkpoint, tokenizer = prepared.checkpoint, prepared.tokenizer
    checkpoint.verify_complete(progress)

    def file_size(recipe: Recipe) -> int:
        (artifact,) = lay_out(checkpoint, recipe, tokenizer, options).values()
        return sum(artifact.file_sizes.values())

    wanted = _within_device(prepared, options)
    found = plan_quality(checkpoint, prepared.recipe, wanted, tokenizer, file_size, progress)
    artifacts = lay_out(checkpoint, found.recipe, tokenizer, options, found.rounding)
    plan = _planned(prepared, found.recipe)
    return replace(prepared, recipe=found.recipe, artifacts=artifacts, quality=found.report, plan=plan)


def _within_device(prepared: PreparedExport, options: ExportOptions) -> QualityOptions:
    """What was asked for; without a size, the bytes that stay in the device's memory where the recipe's do not."""
    wanted, plan = options.calibrated, prepared.plan
    if plan is None or plan.fits or wanted.target != Target():
        return wanted
    fitted = fitted_mix(prepared.checkpoint.spec, prepared.recipe, plan)
    return replace(wanted, target=Target(file_bytes=fitted.footprint.weight_bytes)) if fitted else wanted


def _planned(prepared: PreparedExport, recipe: Recipe) -> Plan | None:
    """The device's plan for the allocated formats."""
    if prepared.plan is None:
        return None
    before = prepared.plan.footprint
    footprint = planned_footprint(prepared.checkpoint.spec, recipe, context=before.context).of_batch(before.batch)
    return replace(prepared.plan, footprint=footprint)


def _check(prepared: PreparedExport, options: ExportOptions) -> None:
    level = options.calibrated.level
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
