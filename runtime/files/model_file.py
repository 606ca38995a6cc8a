"""Find the model file at a path, which is a GGUF, an ONNX model or a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from sprat.files import checked_path
from sprat.runtime.files.bundle import Bundle
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.onnx import ONNXFile

__all__ = ["ModelFile", "find_model", "model_formats"]

ModelFile: TypeAlias = GGUFFile | ONNXFile


def find_model(path: str | os.PathLike[str], backend: str = "auto") -> Path:
    """The model file at ``path``: the file itself, or the artifact of a bundle that ``backend`` runs.

    Raises:
        InputError: ``path`` is no text and no path, or it is empty.
        BundleError: the folder is not a bundle, or has no artifact for ``backend``.
    """
    path = checked_path(path)
    if not path.is_dir():
        return path
    formats = model_formats(path)
    wanted = "onnx" if backend == "onnx" or (backend == "auto" and "gguf" not in formats) else "gguf"
    return Bundle.open(path).artifact(wanted)


def model_formats(path: str | os.PathLike[str]) -> list[str]:
    """The formats of the model at ``path``: several for a bundle, otherwise one.

    Raises:
        BundleError: the folder is not a bundle.
    """
    if Path(path).is_dir():
        return [artifact.format for artifact in Bundle.open(path).manifest.artifacts]
    return ["onnx" if Path(path).suffix == ".onnx" else "gguf"]
