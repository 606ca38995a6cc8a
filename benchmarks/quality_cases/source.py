"""A source that favours no format: for ``benchmarks/quality.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sprat.arrays import U8Array
from sprat.export.gguf.layout import TensorEntry, gguf_layout
from sprat.export.gguf.quantize import typed_value
from sprat.export.write.writer import write_file
from sprat.quant.formats import get_format
from sprat.quant.round import grid_of
from sprat.runtime.files.gguf import GGUFFile

__all__ = ["dithered"]


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
