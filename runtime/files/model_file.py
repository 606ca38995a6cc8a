"""Find the model file at a path, which is a GGUF, an ONNX model or a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from sprat.errors import BundleError, InputError, unknown_name
from sprat.files import checked_path
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.files.bundle import MANIFEST_NAME, Bundle
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.onnx.file import ONNXFile

__all__ = ["Check", "ModelFile", "bundle_of", "check_model", "find_model", "model_formats"]

Check = Literal["sizes", "hashes"]

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


def bundle_of(path: str | os.PathLike[str]) -> Bundle | None:
    """The bundle at ``path``, or the one whose manifest lists the file ``path``; ``None`` if there is none.

    Raises:
        BundleError: the bundle cannot be opened.
    """
    path = Path(path)
    if path.is_dir():
        return Bundle.open(path)
    if not (path.parent / MANIFEST_NAME).is_file():
        return None
    bundle = Bundle.open(path.parent)
    return bundle if bundle.file(path.name) else None


def check_model(path: str | os.PathLike[str], check: str, progress: ReportProgress = no_progress) -> None:
    """Check the bundle at ``path`` as ``check`` says, before it is loaded.

    Raises:
        BundleError: damage was found, or hashes are to be checked and there are none.
        InputError: ``check`` is not one of :data:`Check`.
    """
    if check not in get_args(Check):
        raise InputError(unknown_name("check", str(check), get_args(Check)))
    if check == "sizes":
        return  # Bundle.open compares them
    bundle = bundle_of(path)
    if bundle is None:
        raise BundleError(
            f"{path}: no {MANIFEST_NAME} that lists it, expected a bundle written by `sprat export`, which has hashes; "
            "load the file without this check"
        )
    bundle.check(progress)
