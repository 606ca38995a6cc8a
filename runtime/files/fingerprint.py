"""``fingerprint``: tells a model's files from those of another model without reading all of them.

A KV cache is valid for the weights that computed it. Reading 8 GB to say so would take as long as the prompt; sizes and
samples that are spread over a file differ for any other training, quantization or merge of the same shape. It is no
proof against a file that was made to have the same samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from sprat.files import open_input
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.model_file import ModelFile
from sprat.runtime.files.samples import add_samples

__all__ = ["fingerprint", "model_paths"]

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
        with open_input(path) as file:
            add_samples(digest, file, _SAMPLES, _SAMPLE_BYTES)
    return digest.hexdigest()
