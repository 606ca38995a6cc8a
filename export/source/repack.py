"""A source tensor in the target's block format, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from sprat.arrays import U8Array
from sprat.export.source.tensor import SourceTensor
from sprat.quant.convert import quantize_from
from sprat.quant.formats import BlockFormat

__all__ = ["repack"]


def repack(tensor: SourceTensor, target: BlockFormat) -> Iterator[U8Array]:
    """All rows of ``tensor`` in ``target``, ``(n, row_bytes)`` at a time; unchanged when it has that format already.

    One thread reads the next chunk while the caller's quantizes this one, so the slower of disk and CPU is the limit.
    """
    chunks = tensor.chunks()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        ahead = reader.submit(next, chunks, None)
        while (chunk := ahead.result()) is not None:
            ahead = reader.submit(next, chunks, None)
            yield chunk if tensor.format is target else quantize_from(chunk, tensor.format, target)
