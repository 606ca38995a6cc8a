"""Blocks that unpack to something infinite, or to no number: one flipped bit in a scale spoils every answer.

Kernels stay within their buffers whatever the bytes are; only numbers come out wrong. A load must not read gigabytes:
it looks at the ends of each tensor, where a file that was cut, shifted or overwritten shows it. What is left shows in
the logits, which :meth:`~sprat.runtime.generate.sampling.Sampler.sample` refuses, and ``sprat inspect --check`` finds
it.
"""

from __future__ import annotations

from sprat.arrays import U8Array
from sprat.errors import ModelFileError
from sprat.quant.convert import first_nonfinite
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.weights import Weight

__all__ = ["check_blocks"]

_CHUNK_BYTES = 1 << 24


def check_blocks(file: GGUFFile, *, every: bool = False) -> None:
    """Look for weights that are not finite.

    Args:
        file: open; its declarations were checked.
        every: read all blocks; without it the first and the last of each tensor, which lie on its neighbours' pages.

    Raises:
        ModelFileError: a block holds one; the message says where in the file.
    """
    for name in file.names():
        weight = file.weight(name)
        blocks = weight.packed.reshape(-1, weight.format.block_bytes)
        spoilt = _scan(weight, blocks) if every else _scan_ends(weight, blocks)
        if spoilt is not None:
            offset = file.tensors[name].offset + spoilt * weight.format.block_bytes
            raise ModelFileError(
                f"{file.path}: tensor {name}, block {spoilt} of {len(blocks)} (byte {offset}): found {weight.format} "
                "weights that are infinite or no number, expected finite ones: damaged, download or export it again"
            )


def _scan_ends(weight: Weight, blocks: U8Array) -> int | None:
    ends = blocks[[0, -1]]
    found = first_nonfinite(ends, weight.format)
    return None if found is None else (0, len(blocks) - 1)[found // weight.format.block_size]


def _scan(weight: Weight, blocks: U8Array) -> int | None:
    step = max(1, _CHUNK_BYTES // weight.format.block_bytes)
    for first in range(0, len(blocks), step):
        found = first_nonfinite(blocks[first : first + step], weight.format)
        if found is not None:
            return first + found // weight.format.block_size
    return None
