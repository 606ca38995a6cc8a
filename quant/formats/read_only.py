"""Block formats that sprat reads but does not write, dequantized by the package ``gguf``.

A published GGUF may have any ggml type (``Q3_K``, ``IQ2_XS``, ``MXFP4``, …). These are sources of an export and never
its target, so they are not registered in :mod:`sprat.quant.formats`.
"""

from __future__ import annotations

import functools

import numpy as np

from sprat.arrays import F32Array, U8Array
from sprat.errors import FormatError
from sprat.quant.formats import BlockFormat, format_of_type

__all__ = ["any_format"]


@functools.cache
def any_format(ggml_type: int) -> BlockFormat:
    """The format with this ggml type number: a registered one, or one that only dequantizes.

    Raises:
        FormatError: neither sprat nor the installed ``gguf`` knows the number.
    """
    try:
        return format_of_type(ggml_type)
    except FormatError:
        return _read_only_format(ggml_type)


def _read_only_format(ggml_type: int) -> BlockFormat:
    import gguf

    try:
        kind = gguf.GGMLQuantizationType(ggml_type)
        size, packed_size = gguf.GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        raise FormatError(f"ggml type {ggml_type} is unknown; upgrade the package gguf, or use another file") from None

    class ReadOnly(
        BlockFormat, ggml_type=ggml_type, file_type=-1, block_size=size, block_bytes=packed_size, register=False
    ):
        def quantize_blocks(self, blocks: F32Array, importance: F32Array | None = None) -> U8Array:
            raise FormatError(f"{self.name} can be read but not written; use Q4_0, Q8_0 or another of sprat's formats")

        def dequantize_blocks(self, packed: U8Array) -> F32Array:
            try:
                return np.asarray(gguf.dequantize(packed, kind), dtype=np.float32)
            except NotImplementedError:
                raise FormatError(f"the package gguf cannot dequantize {self.name}; use another file") from None

    ReadOnly.name = kind.name
    return ReadOnly()
