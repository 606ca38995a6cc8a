"""``sprat.load``: load a model by name; ``sprat run``, ``sprat chat`` and ``sprat eval`` begin with it."""

from __future__ import annotations

import os

from sprat.app.model_reference import find_source
from sprat.boundary import public_call
from sprat.errors import InputError
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.cache import Storage
from sprat.runtime.engine import Engine
from sprat.runtime.files.bundle import MANIFEST_NAME
from sprat.runtime.files.model_file import Check

__all__ = ["load"]


@public_call
def load(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    memory: int | str | None = None,
    backend: str = "auto",
    context: int | None = None,
    batch: int | None = None,
    force: bool = False,
    cache: Storage | None = None,
    deterministic: bool = False,
    exact: bool = False,
    check: Check = "sizes",
    progress: ReportProgress = no_progress,
) -> Engine:
    """Load a model: like :meth:`Engine.load`, which takes bundles and model files, and also checkpoints.

    A checkpoint folder, such as the packaged student ``"demo"``, runs unquantized, in NumPy and float32: deterministic
    and exact, but slow. Export it to run it fast.

    Args:
        model: a bundle, a GGUF or ONNX file, a checkpoint folder, ``"org/name"`` of the hub's cache, or ``"demo"``.
        device: a profile (see ``sprat devices``) whose plan chooses threads, context, batch and cache; the model must
            fit it, whole or with experts streamed. Not for a checkpoint.
        memory: hard limit for weights, buffers and the KV caches of all sessions, in bytes or as ``"3GB"``; replaces
            the device's. For a checkpoint: bytes of weights that may stay in memory as float32.
        backend: a name that ``sprat doctor`` lists, or ``"auto"``. A checkpoint runs on ``"reference"`` only.
        context: tokens that prompt and answer may have together; by default the model's own limit, at most 4096, and
            on a device what fits.
        batch: prompt tokens of one forward pass; fewer take less memory and are slower. Not for a checkpoint.
        force: load a model that does not fit; weights are then read from storage again for every token.
        cache: format of the KV cache, ``"f16"`` or ``"int8"``; by default the backend's choice. Not for a checkpoint.
        deterministic: accept only a backend that computes the same bits for the same tokens in every run.
        exact: accept only a backend that does not round activations to one int8 digit.
        check: ``"hashes"`` first reads every byte of a bundle and compares the hashes of its manifest; ``"sizes"``
            compares the sizes of its files.
        progress: of the hashes, in bytes.

    Returns:
        An engine. Close it, or use it in a ``with`` statement.

    Raises:
        InputError: the model, the device or a limit cannot be used; its subclasses name the kinds.
        DoesNotFitError: the model needs more than the budget.
        BundleError: ``check="hashes"`` found damage, or the model has no manifest with hashes.
        BackendError: no backend can run it here.
    """
    path = find_source(model)
    if not path.is_dir() or (path / MANIFEST_NAME).exists():
        return Engine.load(
            path,
            device=device,
            memory=memory,
            backend=backend,
            context=context,
            batch=batch,
            force=force,
            cache=cache,
            deterministic=deterministic,
            exact=exact,
            check=check,
            progress=progress,
        )
    if backend not in {"auto", "reference"} or (device, cache, batch, check) != (None, None, None, "sizes"):
        raise InputError(
            f"{path}: a checkpoint runs unquantized, in NumPy, with no choice of device, backend, cache, batch or "
            f"check; export it first:  sprat export {model} OUT"
        )
    from sprat.export.verify.source_model import load_source

    return load_source(path, memory=memory, context=context)
