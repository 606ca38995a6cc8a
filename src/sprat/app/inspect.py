"""``sprat inspect``: what a model is, where its bytes go, and what loads it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sprat.app.model_reference import find_source
from sprat.boundary import public_call
from sprat.export.inspection import Inspection
from sprat.export.inspection import inspect as inspect_path
from sprat.progress import ReportProgress, no_progress

__all__ = ["inspect"]


@public_call
def inspect(
    path: str | os.PathLike[str],
    *,
    check: bool = False,
    provider: str | None = None,
    ignore_config_fields: Sequence[str] = (),
    progress: ReportProgress = no_progress,
) -> Inspection:
    """Describe a bundle, a GGUF or ONNX file, or a checkpoint from its headers; weights are read only by ``check``.

    Of a bundle with both formats the GGUF is described, and a note names the ONNX model.

    Args:
        path: the model, a repository in the local Hugging Face cache (``"org/name"``), or ``"demo"``.
        check: read every byte of a bundle and compare the hashes of its manifest, and read every block of a GGUF;
            other bytes, and weights that are NaN or Inf, are an error.
        provider: load and run the ONNX model with this execution provider of onnxruntime, ``"webgpu"`` for example,
            in a child process: which nodes it computes, which the CPU, and how far its logits are from the CPU's.
        ignore_config_fields: unknown fields of a checkpoint's ``config.json`` that do not change the forward pass.
        progress: of the hashes, in bytes.

    Raises:
        InputError: ``path`` is not a model, is damaged, or ``check`` is asked of a model that is neither a bundle nor a
            GGUF, or ``provider`` of one without ONNX.
        BackendError: the provider is not installed, or does not load the model.
    """
    return inspect_path(
        find_source(path),
        check=check,
        provider=provider,
        ignore_config_fields=ignore_config_fields,
        progress=progress,
    )
