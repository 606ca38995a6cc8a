"""``sprat.load``: load a model by name; ``sprat run``, ``sprat chat`` and ``sprat eval`` begin with it."""

from __future__ import annotations

import os
from typing import Unpack

from sprat.app.model_reference import find_source
from sprat.boundary import public_call
from sprat.errors import InputError
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.engine import Engine
from sprat.runtime.files.bundle import has_manifest
from sprat.runtime.loading.options import LoadKeywords, LoadOptions

__all__ = ["load"]

_OF_FILES = (
    "device",
    "backend",
    "cache",
    "flash_attention",
    "batch",
    "check",
    "isolate",
    "gpu",
    "provider",
    "prefix_cache",
    "speculate",
)


@public_call
def load(
    model: str | os.PathLike[str],
    *,
    draft: Engine | None = None,
    progress: ReportProgress = no_progress,
    **options: Unpack[LoadKeywords],
) -> Engine:
    """Load a model: like :meth:`Engine.load`, which takes bundles and model files, and also checkpoints.

    A checkpoint folder, such as the packaged student ``"demo"``, runs unquantized, in NumPy and float32: deterministic
    and exact, but slow, and without a choice of device, backend, cache, flash attention, batch, check, isolation, GPU,
    provider, prefix cache and speculation. Export it to run it fast.

    Args:
        model: a bundle, a GGUF or ONNX file, a checkpoint folder, ``"org/name"`` of the hub's cache, or ``"demo"``.
        draft: the engine of a smaller model, which guesses tokens; see :meth:`Engine.load`.
        progress: of ``check="hashes"``, in bytes.
        options: ``device``, ``memory`` and the other fields of :class:`~sprat.runtime.loading.options.LoadOptions`.

    Returns:
        An engine. Close it, or use it in a ``with`` statement.

    Raises:
        InputError: the model, the device or a limit cannot be used; its subclasses name the kinds.
        DoesNotFitError: the model needs more than the budget.
        BundleError: ``check="hashes"`` found damage, or the model has no manifest with hashes.
        BackendError: no backend can run it here.
    """
    wanted, path = LoadOptions.of("load()", options), find_source(model)
    if not path.is_dir() or has_manifest(path):
        return Engine.load(path, draft=draft, progress=progress, **options)
    if chosen := [*_chosen(wanted), *(["draft"] if draft else [])]:
        raise InputError(
            f"{path}: a checkpoint runs unquantized, in NumPy, with no choice of {', '.join(chosen)}; export it first: "
            f" sprat export {model} OUT"
        )
    from sprat.export.verify.source_model import load_source

    return load_source(path, memory=wanted.memory, context=wanted.context)


def _chosen(wanted: LoadOptions) -> list[str]:
    """The options with a value that a checkpoint cannot have."""
    default = LoadOptions(backend=wanted.backend if wanted.backend == "reference" else "auto")
    return [name for name in _OF_FILES if getattr(wanted, name) != getattr(default, name)]
