"""Conversion from one block format to another, and the scan for NaN and Inf."""

from __future__ import annotations

import numpy as np

from sprat.arrays import U8Array
from sprat.quant.formats import native
from sprat.quant.formats.block import BlockFormat

__all__ = ["first_nonfinite", "quantize_from"]

_CHUNK_WEIGHTS = 1 << 22


def quantize_from(packed: U8Array, source: BlockFormat, target: BlockFormat) -> U8Array:
    """Convert ``(..., source.row_bytes(k))`` bytes to ``(..., target.row_bytes(k))``.

    Works in chunks: only the result has the size of the tensor.

    Raises:
        FormatError: ``k`` is not a multiple of the target's block size.
    """
    n_weights = packed.shape[-1] // source.block_bytes * source.block_size
    rows = np.ascontiguousarray(packed).reshape(-1, packed.shape[-1])
    out = np.empty((len(rows), target.row_bytes(n_weights)), np.uint8)
    if not native.convert(source.ggml_type, target.ggml_type, rows, out):
        chunk = max(1, _CHUNK_WEIGHTS // n_weights)
        for start in range(0, len(rows), chunk):
            out[start : start + chunk] = target.quantize(source.dequantize(rows[start : start + chunk]))
    return out.reshape(*packed.shape[:-1], out.shape[1])


def first_nonfinite(packed: U8Array, source: BlockFormat) -> int | None:
    """Index in C order of the first weight that is NaN or Inf; ``None`` if all are finite."""
    rows = np.ascontiguousarray(packed).reshape(-1, source.block_bytes)
    scanned, first = native.scan(source.ggml_type, rows)
    if scanned:
        return first
    chunk = max(1, _CHUNK_WEIGHTS // source.block_size)
    for start in range(0, len(rows), chunk):
        bad = ~np.isfinite(source.dequantize(rows[start : start + chunk]))
        if bad.any():
            return start * source.block_size + int(bad.argmax())
    return None
