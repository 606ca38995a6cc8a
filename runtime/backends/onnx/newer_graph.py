"""A second graph over the same weights, with operators that older versions of onnxruntime lack (docs/onnx.md).

The ``model.onnx`` of an MoE model loads in every version since 1.22. Beside it is a graph whose experts are one
``QMoE``: the same results from the same data file, in less time per token. It names the SHA-256 of ``model.onnx``, so
it is used with no other.
"""

from __future__ import annotations

import hashlib
import re

from sprat.runtime.backends.providers.library import onnxruntime
from sprat.runtime.files.onnx.file import NEWER_NAME, ONNXFile

__all__ = ["OF_KEY", "fastest_graph"]

OF_KEY = "sprat.of"  # metadata of the newer graph: SHA-256 of the file model.onnx
_VERSION = re.compile(r"(\d+)\.(\d+)")


def fastest_graph(file: ONNXFile) -> ONNXFile:
    """The newer graph of ``file``, if it has one and the installed onnxruntime runs it; else ``file``.

    Raises:
        ModelFileError: the newer graph is damaged.
        BackendError: onnxruntime is not installed.
    """
    path = file.path.with_name(NEWER_NAME)
    if not path.is_file() or _version(onnxruntime().__version__) < _version(NEWER_NAME):
        return file
    newer = ONNXFile.open(path)
    same_model = newer.metadata.get(OF_KEY) == hashlib.sha256(file.path.read_bytes()).hexdigest()
    return newer if same_model and (newer.spec, newer.cache) == (file.spec, file.cache) else file


def _version(text: str) -> tuple[int, int]:
    """Major and minor version in ``text``; (0, 0) if there is none."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
