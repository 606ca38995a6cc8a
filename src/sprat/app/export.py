"""``sprat export``: a checkpoint, a GGUF file or the packaged student to a bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sprat.app.model_reference import find_source
from sprat.boundary import public_call
from sprat.export.onnx import OnnxOptions
from sprat.export.pipeline import ExportResult
from sprat.export.pipeline import export as export_path
from sprat.progress import ReportProgress, no_progress

if TYPE_CHECKING:
    from sprat.export.onnx.optimum import OptimumExport

__all__ = ["export", "export_with_optimum"]


@public_call
def export(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    quant: str | None = None,
    device: str | None = None,
    formats: Sequence[str] = ("gguf",),
    tensor_rules: Sequence[str] = (),
    align: int | None = None,
    split: int | str | None = None,
    name: str | None = None,
    block_size: int = 32,
    accuracy_level: int = 4,
    portable: bool = False,
    context: int | None = None,
    lora: Sequence[str | os.PathLike[str]] = (),
    ignore_config_fields: Sequence[str] = (),
    chat_template: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: ReportProgress = no_progress,
) -> ExportResult:
    """Export a checkpoint to a bundle, in the memory of one tensor; interrupted, the same call resumes.

    Args:
        source: a checkpoint folder, a GGUF (of a split model any part), a repository in the local Hugging Face cache
            (``"org/name"``), or ``"demo"``, the packaged student.
        out: the bundle's folder; it appears when everything is written.
        quant: ``"int4"``, ``"int8"``, a block format, or ``"keep"``: a GGUF's own; by default what fits ``device``.
        device: a profile's name; a model that does not fit its memory is refused before anything large is read.
        formats: the artifacts to write: ``"gguf"``, ``"onnx"`` or both.
        tensor_rules: block formats of single tensors, ``"ffn_down_exps=q5_0"``; later rules win.
        align: alignment of a GGUF's tensors in bytes; by default 4096 for MoE models and 32 for others.
        split: split a GGUF into files of at most this size, in bytes or as ``"4GB"``, if it is larger; the names are
            llama.cpp's, and llama.cpp loads them.
        name: the model's name in manifest, metadata and file name, ``"owner/Name-7B-Chat"``; by default the source's.
        block_size: ONNX: weights that share a scale: 32, 64 or 128.
        accuracy_level: ONNX: 4 quantizes activations to int8, 0 keeps them in float32.
        portable: ONNX: standard operators only, for runtimes other than onnxruntime.
        context: tokens to plan the KV cache for; by default the model's limit, at most 4096.
        lora: folders of PEFT's LoRA adapters to merge into the weights, ``"DIR"`` or ``"DIR:scale"``, in this order.
        ignore_config_fields: unknown fields of ``config.json`` that change no mathematics: ``"rope_scaling.name"``.
        chat_template: a file with a Jinja template, instead of the source's chat template.
        force: replace an existing bundle at ``out``, and write a model that does not fit the device.
        progress: called after each chunk that is read or written, in bytes.

    Raises:
        InputError: the source, the device, a format or a rule cannot be used, or the model does not fit.
        ExportError: the output cannot be written, or the source changed during the export.
    """
    return export_path(
        find_source(source),
        out,
        quant=quant,
        device=device,
        formats=formats,
        tensor_rules=tensor_rules,
        align=align,
        split=split,
        name=name,
        onnx=OnnxOptions(block_size=block_size, accuracy_level=accuracy_level, portable=portable),
        context=context,
        lora=lora,
        ignore_config_fields=ignore_config_fields,
        chat_template=chat_template,
        force=force,
        progress=progress,
    )


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
