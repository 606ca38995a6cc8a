"""``Weight``: a tensor in its file's format, and the interface of a file or folder of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sprat.arrays import F32Array, U8Array
from sprat.quant.formats import BlockFormat

__all__ = ["Weight", "WeightSource"]


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """Packed rows of one block format: a view of a mapped file, or of a buffer.

    ``packed`` has shape ``(*shape[:-1], row_bytes)``. The last axis of ``shape`` is the one that a product sums over
    (ggml's ``ne[0]``): a linear layer is ``(out, in)``, stacked experts are ``(n_experts, out, in)``.
    """

    name: str
    format: BlockFormat
    shape: tuple[int, ...]
    packed: U8Array

    def __getitem__(self, index: int) -> Weight:
        """One expert, or one head, of a stacked weight; no copy."""
        return Weight(f"{self.name}[{index}]", self.format, self.shape[1:], self.packed[index])

    @property
    def nbytes(self) -> int:
        """Bytes of the packed blocks."""
        return self.packed.nbytes

    def dequantize(self) -> F32Array:
        """All elements as float32, of ``shape``."""
        return self.format.dequantize(self.packed)


class WeightSource(Protocol):
    """Weights by canonical name (GGUF's: ``blk.0.attn_q.weight``), read on access."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every weight, in file order; none is read."""

    def __contains__(self, name: object, /) -> bool: ...

    def weight(self, name: str) -> Weight:
        """The weight ``name``.

        Raises:
            InputError: there is none; the message names the source.
        """

    def check_unchanged(self) -> None:
        """Check that all weights read so far are those of the source; called before a result is used.

        Raises:
            SpratError: the source changed, or cannot be read any more.
        """
