"""llama.cpp's imatrix as a GGUF: the mean square of every matrix's inputs, for llama-quantize and from llama-imatrix.

::

    general.type = "imatrix"
    imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size
    NAME.in_sum2     F32, (n_parts, k): sum of the squares of each input
    NAME.counts      F32, (n_parts, 1): inputs that were summed

Format: https://github.com/ggml-org/llama.cpp/tree/master/tools/imatrix
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.errors import ExportError, InputError, SpratError
from sprat.export.gguf.layout import TensorEntry, gguf_layout
from sprat.export.write.writer import write_file
from sprat.quant.formats import get_format
from sprat.runtime.files.gguf import GGUFFile

__all__ = ["check_imatrix_place", "read_imatrix", "write_imatrix"]

_SUMS, _COUNTS = ".in_sum2", ".counts"
_TYPE = "imatrix"


def check_imatrix_place(path: Path) -> None:
    """Check, before anything is measured, that :func:`write_imatrix` would replace nothing but another imatrix.

    Raises:
        ExportError: its folder does not exist, or there is another file at ``path``.
    """
    if not path.absolute().parent.is_dir():
        raise ExportError(f"{path}: its folder does not exist; create it, or choose another with --imatrix-out")
    if not os.path.lexists(path):
        return
    try:
        read_imatrix(path)
    except (SpratError, OSError) as error:
        raise ExportError(
            f"{path}: exists and is not an imatrix; choose another name with --imatrix-out, or remove it"
        ) from error


def write_imatrix(path: Path, mean_squares: Mapping[str, F32Array], n_tokens: int, dataset: str) -> None:
    """Write the file that ``llama-quantize --imatrix`` reads.

    Args:
        path: the file; an existing one is replaced, see :func:`check_imatrix_place`.
        mean_squares: tensor -> mean square of its inputs, ``(n_parts, k)``.
        n_tokens: tokens of the calibration text.
        dataset: name of the text.

    Raises:
        ExportError: the file cannot be written.
    """
    arrays: dict[str, F32Array] = {}
    for name, squares in mean_squares.items():
        arrays[name + _SUMS] = squares * np.float32(n_tokens)
        arrays[name + _COUNTS] = np.full((len(squares), 1), n_tokens, np.float32)
    keys = {
        "general.type": _TYPE,
        "imatrix.datasets": [dataset],
        "imatrix.chunk_count": 1,
        "imatrix.chunk_size": n_tokens,
    }

    def pack(entry: TensorEntry) -> Iterator[U8Array]:
        yield np.ascontiguousarray(arrays[entry.name]).view(np.uint8).reshape(-1)

    f32 = get_format("F32")
    write_file(path, gguf_layout(keys, [TensorEntry(name, a.shape, f32) for name, a in arrays.items()]), pack)


def read_imatrix(path: Path) -> dict[str, F32Array]:
    """Tensor -> mean square of its inputs, ``(n_parts, k)``; of all parts together for one that saw nothing.

    Raises:
        ModelFileError: the file is not a GGUF.
        InputError: it is another kind of GGUF.
    """
    with GGUFFile.open(path) as file:
        if file.metadata.get("general.type") != _TYPE:
            raise InputError(
                f"{path}: general.type is {file.metadata.get('general.type')!r}, expected {_TYPE!r}; "
                "make the file with llama-imatrix of 2025 or later"
            )
        names = [name.removesuffix(_SUMS) for name in file.names() if name.endswith(_SUMS)]
        return {name: _means(file, name) for name in names}


def _means(file: GGUFFile, name: str) -> F32Array:
    sums = file.weight(name + _SUMS).dequantize()
    counts = file.weight(name + _COUNTS).dequantize().reshape(-1, 1)
    sums = sums.reshape(len(counts), -1)
    everywhere = sums.sum(axis=0) / max(float(counts.sum()), 1.0)
    return np.where(counts > 0, sums / np.maximum(counts, np.float32(1)), everywhere).astype(np.float32)
