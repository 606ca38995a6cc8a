"""llama-quantize, called through libllama, and a source that favours no format: for ``benchmarks/quality.py``."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.export.gguf.layout import TensorEntry, gguf_layout
from sprat.export.gguf.quantize import typed_value
from sprat.export.write.writer import write_file
from sprat.quant.formats import get_format
from sprat.quant.round import grid_of
from sprat.runtime.files.gguf import GGUFFile

__all__ = ["FILE_TYPES", "dithered", "llama_quantize"]

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


def dithered(source: Path, out: Path, seed: int) -> Path:
    """Write a GGUF of ``source`` in F16, with every weight at a random place inside its own quantization cell.

    A quantized file used as an unquantized source would flatter the format that it is in. A cell is half a step to
    either side; F32 tensors are copied.
    """
    rng, f16, f32 = np.random.default_rng(seed), get_format("F16"), get_format("F32")
    with GGUFFile.open(source) as file:
        weights = [file.weight(name) for name in file.names()]
        entries = [TensorEntry(w.name, w.shape, f32 if w.format is f32 else f16) for w in weights]
        keys = {key: typed_value(value, file.value_types[key]) for key, value in file.metadata.items()}
        keys.pop("general.alignment", None)
        keys["general.file_type"] = f16.file_type

        def pack(entry: TensorEntry) -> Iterator[U8Array]:
            weight = file.weight(entry.name)
            values, grid = weight.dequantize(), grid_of(weight.format)
            if grid:
                scale, _ = grid.scales(weight.packed.reshape(-1, weight.format.block_bytes))
                place = rng.uniform(-0.5, 0.5, (*scale.shape, grid.sub_block)).astype(np.float32)
                values = (values.reshape(place.shape) + scale[..., None] * place).reshape(weight.shape)
            yield entry.format.quantize(values).reshape(-1)

        write_file(out, gguf_layout(keys, entries), pack)
    return out
