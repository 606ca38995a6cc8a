"""llama-quantize, called through libllama of llama-cpp-python: what a calibrated export is compared with."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sprat.arrays import F32Array
from sprat.errors import BackendError, unknown_name
from sprat.quant.formats import get_format

__all__ = ["FILE_TYPES", "has_llama_quantize", "llama_quantize"]

FILE_TYPES = {
    "q4_0": 2,
    "q8_0": 7,
    "q2_k": 10,
    "q3_k_m": 12,
    "q4_k_s": 14,
    "q4_k_m": 15,
    "q5_k_m": 17,
    "q6_k": 18,
    "iq4_nl": 25,
}
"""llama.h's ``llama_ftype`` by name."""


def has_llama_quantize() -> bool:
    """Whether llama-cpp-python is installed; importing it loads its library."""
    return importlib.util.find_spec("llama_cpp") is not None


def llama_quantize(
    source: Path,
    out: Path,
    file_type: str,
    imatrix: Mapping[str, F32Array],
    tensor_types: Mapping[str, str] | None = None,
) -> Path:
    """Quantize ``source`` as ``llama-quantize --imatrix`` does.

    Args:
        source: a GGUF whose tensors are aligned to 32 bytes: llama-quantize ignores ``general.alignment``.
        out: the file to write.
        file_type: a name of :data:`FILE_TYPES`.
        imatrix: tensor -> mean square of its inputs, ``(n_parts, k)``.
        tensor_types: its ``--tensor-type``: pattern -> block format; ``token_embd`` and ``output`` mean its options for
            these two.

    Raises:
        BackendError: an unknown file type, or llama-quantize failed.
    """
    if file_type not in FILE_TYPES:
        raise BackendError(unknown_name("file type of llama-quantize", file_type, FILE_TYPES))
    from llama_cpp import llama_cpp as lib

    values = {name: np.ascontiguousarray(rows, np.float32).ravel() for name, rows in imatrix.items()}
    entries = (lib.llama_model_imatrix_data * (len(values) + 1))()
    for entry, (name, array) in zip(entries, values.items(), strict=False):
        entry.name, entry.size = name.encode(), array.size
        entry.data = array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    lib.llama_log_set(_no_log(), ctypes.c_void_p(0))
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.imatrix = FILE_TYPES[file_type], 1, entries
    types = {pattern: get_format(name).ggml_type for pattern, name in (tensor_types or {}).items()}
    params.token_embedding_type = types.pop("token_embd", params.token_embedding_type)
    params.output_tensor_type = types.pop("output", params.output_tensor_type)
    overrides = (lib.llama_model_tensor_override * (len(types) + 1))()
    for override, (pattern, ggml_type) in zip(overrides, types.items(), strict=False):
        override.pattern, override.type = pattern.encode(), ggml_type
    if types:
        params.tt_overrides = overrides
    failed = lib.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params))
    if failed:
        raise BackendError(f"{source}: llama-quantize to {file_type} failed with code {failed}; leave this size out")
    return out


@functools.cache  # keeps a reference: ctypes does not
def _no_log() -> Any:
    from llama_cpp import llama_cpp as lib

    return lib.llama_log_callback(lambda _level, _text, _user_data: None)
