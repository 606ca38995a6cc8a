"""Names of models: a path, or a repository in the Hugging Face cache."""

from __future__ import annotations

import os
from pathlib import Path

from sprat.errors import InputError
from sprat.files import checked_path
from sprat.runtime.files.bundle import has_manifest
from sprat.runtime.files.hub_cache import HubReference, gguf_models, is_repository, newest_snapshot
from sprat.runtime.files.shape_checks import summarize

__all__ = ["locate_model", "locate_model_file"]


def locate_model(name: str | os.PathLike[str]) -> Path:
    """The path of a model; nothing is downloaded.

    - An existing file is itself; of a split model, any part.
    - An existing folder is itself, with two exceptions. A model's folder in the Hugging Face cache
      (``models--org--name``) is its newest snapshot. A folder with one GGUF model and no checkpoint is that GGUF.
    - ``"org/name"``, ``"org/name@revision"``, ``"org/name/file.gguf"`` and ``"org/name:Q8_0"`` are looked up in the
      Hugging Face cache (``HF_HUB_CACHE``, ``HF_HOME``).

    Args:
        name: one of these; another path need not exist.

    Raises:
        InputError: ``name`` is no text and no path, or it is empty; a repository is not in the cache, its download is
            incomplete, or a folder has several GGUF models.
    """
    path = checked_path(name, "model")
    if path.is_dir():
        return _in_folder(path)
    if not os.path.lexists(path) and (reference := HubReference.parse(os.fspath(name))):
        return _in_folder(reference.find())
    return path


def locate_model_file(name: str | os.PathLike[str]) -> Path:
    """Like :func:`locate_model`, for a bundle or a model file; a checkpoint is an error that says what runs it.

    Raises:
        InputError: as for :func:`locate_model`, or a checkpoint.
    """
    path = locate_model(name)
    is_checkpoint = path.is_dir() and (path / "config.json").exists() and not has_manifest(path)
    if is_checkpoint or (name == "demo" and not path.exists()):
        raise InputError(
            f"{path}: a checkpoint, expected a bundle or a model file; sprat.load({os.fspath(name)!r}) runs it "
            f"unquantized, `sprat export {os.fspath(name)} OUT` makes a bundle of it"
        )
    return path


def _in_folder(path: Path) -> Path:
    """The model in a folder; a file is itself."""
    if not path.is_dir() or has_manifest(path):
        return path
    if is_repository(path):
        return _in_folder(newest_snapshot(path))
    found = [*path.glob("*.safetensors"), *path.glob("*.bin")]
    return path if found else _gguf_in(path)


def _gguf_in(folder: Path) -> Path:
    """The one GGUF model in ``folder`` or in its folders; ``folder`` itself when there is none."""
    models = gguf_models(folder)
    if len(models) > 1:
        names = summarize((str(path.relative_to(folder)) for path in models), 8)
        raise InputError(f"{folder}: has {len(models)} GGUF models: {names}; give the path of one of them")
    return models[0] if models else folder
