"""``sprat quantize``: a GGUF file to another block format."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sprat.app.demo_bundle import demo_gguf
from sprat.app.model_reference import DEMO, find_source
from sprat.boundary import public_call
from sprat.errors import InputError
from sprat.export.gguf.quantize import QuantizeResult
from sprat.export.gguf.quantize import quantize as quantize_path
from sprat.files import checked_path
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.files.bundle import has_manifest
from sprat.runtime.files.model_file import find_model

__all__ = ["quantize"]


@public_call
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
        source: a GGUF file of any architecture, in any format that ggml knows; of a split model any part; a bundle; a
            repository in the Hugging Face cache (``"org/name"``); or ``"demo"``, the packaged student.
        out: the new file, in a folder that is made where it is missing; after an interruption the same call continues.
        quant: ``int4``, ``int8``, a mix of llama-quantize such as ``q4_k_m``, or a block format.
        tensor_rules: formats for some tensors, ``"ffn_down_exps=q5_0"``; later ones win.
        align: alignment of the tensors in bytes; by default the source's.
        split: split ``out`` into files of at most this size, in bytes or as ``"4GB"``, if it is larger; the names are
            llama.cpp's, ``out-00001-of-00003.gguf``.
        force: replace ``out`` if it exists.
        progress: called after each chunk that is read or written.

    Raises:
        InputError: the source is malformed, cannot be read or has weights that are not finite, a format or rule is
            unknown, or a weight exceeds the range of its format.
        ExportError: ``out`` exists or cannot be written, or the source changed during the export.
    """
    path = demo_gguf("bf16") if source == DEMO else find_source(source)
    if has_manifest(path):
        path = find_model(path)
    elif path.is_dir():
        raise InputError(
            f"{path}: a checkpoint, and quantize reads a GGUF; `sprat export {source} OUT --quant {quant}` quantizes it"
        )
    return quantize_path(
        path,
        checked_path(out, "out"),
        quant=quant,
        tensor_rules=tensor_rules,
        align=align,
        split=split,
        force=force,
        progress=progress,
    )
