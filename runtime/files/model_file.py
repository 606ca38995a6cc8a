"""The file behind what a user calls a model: a GGUF, an ONNX model, or an artifact of a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from sprat.runtime.files.bundle import Bundle
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.onnx import ONNXFile

__all__ = ["ModelFile", "find_model", "held_formats"]

ModelFile: TypeAlias = GGUFFile | ONNXFile


def find_model(path: str | os.PathLike[str], backend: str = "auto") -> Path:
    """The file behind what a user calls a model: itself, or an artifact of a bundle.

    Raises:
        BundleError: a folder that is no bundle, or one without a file that ``backend`` runs.
    """
    if not Path(path).is_dir():
        return Path(path)
    held = held_formats(path)
    wanted = "onnx" if backend == "onnx" or (backend == "auto" and "gguf" not in held) else "gguf"
    return Bundle.open(path).artifact(wanted)


def held_formats(path: str | os.PathLike[str]) -> list[str]:
    """The formats of what a user calls a model: several for a bundle, otherwise one.

    Raises:
        BundleError: a folder that is no bundle.
    """
    if Path(path).is_dir():
        return [artifact.format for artifact in Bundle.open(path).manifest.artifacts]
    return ["onnx" if Path(path).suffix == ".onnx" else "gguf"]
