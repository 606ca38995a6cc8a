"""``fingerprint``: tells a model's files from those of another model without reading all of them.

A KV cache is valid for the weights that computed it. Reading 8 GB to say so would take as long as the prompt; sizes and
samples that are spread over a file differ for any other training, quantization or merge of the same shape. It is no
proof against a file that was made to have the same samples.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from sprat.files import open_input
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.model_file import ModelFile

__all__ = ["fingerprint", "model_paths"]

_BEGIN_BYTES = 1 << 16
_SAMPLES, _SAMPLE_BYTES = 1024, 256


def model_paths(file: ModelFile) -> list[Path]:
    """The files of a model."""
    return [part.path for part in file.parts] if isinstance(file, GGUFFile) else file.files()


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 of the sizes and of samples of a model's files, in hexadecimal.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        _add(digest, path)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, path: Path) -> None:
    with open_input(path) as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        digest.update(file.read(_BEGIN_BYTES))
        for sample in range(_SAMPLES):
            file.seek(size * sample // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
