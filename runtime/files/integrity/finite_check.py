"""Search for blocks that dequantize to NaN or Inf, for example because of one flipped bit in a scale.

Kernels never leave their buffers, whatever the weights are, but NaN spreads to every logit. Loading must not read
gigabytes, so it checks the first and the last block of each tensor, where a truncated, shifted or overwritten file
usually shows. For others, :meth:`~sprat.runtime.generate.sampling.Sampler.sample` raises an error on non-finite logits,
and ``sprat inspect --check`` finds the block.
"""

from __future__ import annotations

from sprat.arrays import U8Array
from sprat.errors import ModelFileError
from sprat.quant.convert import first_nonfinite
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.weights import Weight

__all__ = ["check_finite"]

_CHUNK_BYTES = 1 << 24


def check_finite(file: GGUFFile, *, every: bool = False) -> None:
    """Check that weights are finite.

    Args:
        file: an open file.
        every: check all blocks; otherwise the first and the last of each tensor.

    Raises:
        ModelFileError: a block holds NaN or Inf; the message has its offset in the file.
        ModelFileChangedError: the file changed meanwhile.
    """
    try:
        _check(file, every=every)
    finally:
        file.check_unchanged()


def _check(file: GGUFFile, *, every: bool) -> None:
    for name in file.names():
        weight = file.weight(name)
        blocks = weight.packed.reshape(-1, weight.format.block_bytes)
        found = _scan(weight, blocks) if every else _scan_ends(weight, blocks)
        if found is not None:
            info = file.tensors[name]
            offset = info.offset + found * weight.format.block_bytes
            raise ModelFileError(
                f"{file.parts[info.part].path}: tensor {name}, block {found} of {len(blocks)} (byte {offset}): found "
                f"{weight.format} weights that are NaN or Inf, expected finite ones; the file is damaged: "
                "download or export it again"
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
