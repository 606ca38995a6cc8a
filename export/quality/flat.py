"""Rounding without statistics: the scale search with equal importance of all inputs, which costs no text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sprat.arrays import U8Array
from sprat.quant.formats import BlockFormat
from sprat.runtime.weights import Weight, WeightSource

__all__ = ["FlatRounding"]


@dataclass(frozen=True, slots=True)
class FlatRounding:
    """A :class:`~sprat.export.write.rounding.Rounding` of the tensors ``names``."""

    digest: str
    names: frozenset[str]
    weights: WeightSource

    def has(self, name: str) -> bool:
        """Whether this source rounds the tensor."""
        return name in self.names

    def round(self, name: str, format: BlockFormat) -> U8Array:
        """The packed rows of the tensor; of a stack, one part is dequantized at a time."""
        weight = self.weights.weight(name)
        parts = [weight] if len(weight.shape) == 2 else [weight[part] for part in range(weight.shape[0])]
        return np.concatenate([_search(part, format) for part in parts])


def _search(weight: Weight, format: BlockFormat) -> U8Array:
    rows = weight.dequantize()
    return format.quantize(rows, np.ones(rows.shape[-1], np.float32))
