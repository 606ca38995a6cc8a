"""``sprat export``: a checkpoint, a GGUF file or the packaged student to a bundle."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Unpack

from sprat.app.model_reference import find_source
from sprat.boundary import public_call
from sprat.export.estimate import ExportEstimate
from sprat.export.estimate import estimate_export as estimate_path
from sprat.export.onnx import OnnxOptions
from sprat.export.options import ExportKeywords
from sprat.export.pipeline import ExportResult
from sprat.export.pipeline import export as export_path
from sprat.files import checked_path
from sprat.progress import ReportProgress, no_progress

if TYPE_CHECKING:
    from sprat.export.onnx.optimum import OptimumExport

__all__ = ["estimate_export", "export", "export_with_optimum"]


@public_call
def export(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: ReportProgress = no_progress,
    **options: Unpack[ExportKeywords],
) -> ExportResult:
    """Export a checkpoint to a bundle, in the memory of one tensor; interrupted, the same call resumes.

    Args:
        source: a checkpoint folder, a GGUF (of a split model any part), a repository in the local Hugging Face cache
            (``"org/name"``), or ``"demo"``, the packaged student.
        out: the bundle's folder; it appears when everything is written.
        progress: called after each chunk that is read or written, in bytes.
        options: ``quant``, ``device`` and the other fields of :class:`~sprat.export.options.ExportOptions`.

    Raises:
        InputError: the source, the device, a format or a rule cannot be used, or the model does not fit.
        ExportError: the output cannot be written, or the source changed during the export.
    """
    return export_path(find_source(source), checked_path(out, "out"), progress=progress, **options)


@public_call
def estimate_export(
    source: str | os.PathLike[str], out: str | os.PathLike[str], **options: Unpack[ExportKeywords]
) -> ExportEstimate:
    """Sizes, free space and time of :func:`export` with the same arguments; nothing is written, no weight is checked.

    Args:
        source: as of :func:`export`.
        out: as of :func:`export`.
        options: as of :func:`export`.

    Raises:
        InputError: the source, the device, a format or a rule cannot be used, or the model does not fit.
        ExportError: ``out`` exists and is not a bundle.
    """
    return estimate_path(find_source(source), checked_path(out, "out"), **options)


@public_call
def export_with_optimum(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    quant: str = "int4",
    block_size: int = 32,
    accuracy_level: int = 4,
    portable: bool = False,
) -> OptimumExport:
    """Trace a checkpoint of any architecture with optimum-onnx, and quantize the weights of its products.

    Args:
        source: a checkpoint folder that optimum-onnx can trace.
        out: the folder of the ONNX model.
        quant: ``"int4"`` or ``"int8"``.
        block_size: weights that share a scale: 32, 64 or 128.
        accuracy_level: 4 quantizes activations to int8, 0 keeps them in float32.
        portable: standard operators only.

    Raises:
        InputError: the source or an option cannot be used.
        BackendError: optimum-onnx is not installed, or cannot trace the source.
        ExportError: the output cannot be written.
    """
    from sprat.export.onnx.optimum import export_with_optimum as trace

    options = OnnxOptions(block_size=block_size, accuracy_level=accuracy_level, portable=portable)
    return trace(find_source(source), out, quant=quant, options=options)
