"""Safetensors files of any element type, written by the safetensors library."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import TensorSpec, serialize_file

_NAMES = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "I64": "int64",
    "I32": "int32",
    "U8": "uint8",
    "F8_E8M0": "float8_e8m0fnu",
}


def bf16(array: np.ndarray) -> np.ndarray:
    """The upper 16 bits of float32 values: BF16, truncated."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def save(path: Path, tensors: Mapping[str, np.ndarray], kinds: str | Mapping[str, str] = "F32") -> Path:
    """Write ``tensors``; ``kinds`` is the element type of all, or of each by name."""
    kept = {
        name: np.ascontiguousarray(array) for name, array in tensors.items()
    }  # referenced while the library reads them
    specs = {
        name: TensorSpec(
            dtype=_NAMES[kinds if isinstance(kinds, str) else kinds[name]],
            shape=array.shape,
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in kept.items()
    }
    serialize_file(specs, path, {"format": "pt"})
    return path
