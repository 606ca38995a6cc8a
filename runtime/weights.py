"""A weight as it lies in its file, and anything that hands weights out by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats import BlockFormat

__all__ = ["Weight", "WeightSource"]


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """Packed rows of one format: a view of a memory map, or of a buffer that was just filled.

    ``packed`` has shape ``(*shape[:-1], row_bytes)``; the last axis of ``shape`` is the one that the product sums over
    (ggml's ``ne[0]``), so a linear layer is ``(out, in)`` and stacked experts are ``(n_experts, out, in)``.
    """

    name: str
    format: BlockFormat
    shape: tuple[int, ...]
    packed: U8Array

    def __getitem__(self, index: int) -> Weight:
        """One expert, or one head, of a stacked weight; nothing is copied."""
        return Weight(f"{self.name}[{index}]", self.format, self.shape[1:], self.packed[index])

    @property
    def nbytes(self) -> int:
        """Bytes of the packed blocks."""
        return self.packed.nbytes

    def dequantize(self) -> F32Array:
        """All weights as float32, of ``shape``."""
        return self.format.dequantize(self.packed)


class WeightSource(Protocol):
    """Weights under their canonical names (GGUF's: ``blk.0.attn_q.weight``), read when asked for."""

    def names(self) -> Iterable[str]:
        """All names, in file order."""

    def __contains__(self, name: object, /) -> bool: ...

    def weight(self, name: str) -> Weight:
        """The weight called ``name``.

        Raises:
            InputError: there is none; the message names the source.
        """
