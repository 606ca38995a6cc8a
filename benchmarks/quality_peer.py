"""llama-quantize, called through libllama: the peer of ``benchmarks/quality.py``."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sprat.arrays import F32Array

__all__ = ["FILE_TYPES", "llama_quantize"]

FILE_TYPES = {"q4_0": 2, "q8_0": 7, "q3_k_m": 12, "q4_k_s": 14, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18, "iq4_nl": 25}


def llama_quantize(source: Path, out: Path, file_type: str, imatrix: Mapping[str, F32Array]) -> Path:
    """Quantize ``source`` as ``llama-quantize --imatrix`` does.

    Args:
        source: a GGUF whose tensors are aligned to 32 bytes: llama-quantize ignores ``general.alignment``.
        out: the file to write.
        file_type: a name of :data:`FILE_TYPES`.
        imatrix: tensor -> mean square of its inputs, ``(n_parts, k)``.
    """
    from llama_cpp import llama_cpp as lib

    values = {name: np.ascontiguousarray(rows, np.float32).ravel() for name, rows in imatrix.items()}
    entries = (lib.llama_model_imatrix_data * (len(values) + 1))()
    for entry, (name, array) in zip(entries, values.items(), strict=False):
        entry.name, entry.size = name.encode(), array.size
        entry.data = array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.imatrix = FILE_TYPES[file_type], 1, entries
    failed = lib.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params))
    if failed:
        raise RuntimeError(f"llama_model_quantize: {source} to {file_type} failed with {failed}")
    return out
