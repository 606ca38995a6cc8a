"""Tensors that a :class:`~sprat.export.write.rounding.Rounding` rounds, as sources of a writer that repacks rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sprat.arrays import U8Array
from sprat.export.source.rows import RowView
from sprat.export.source.tensor import SourceTensor
from sprat.export.write.rounding import Rounding
from sprat.quant.formats import BlockFormat
from sprat.quant.recipe import Recipe

__all__ = ["rounded_tensors"]


@dataclass(frozen=True, slots=True)
class _RoundedRows(RowView):
    """The rows of a tensor in ``target``; the rounding keeps them in memory."""

    name: str
    target: BlockFormat
    rounding: Rounding

    @property
    def format(self) -> BlockFormat:
        """The target's."""
        return self.target

    def read_into(self, start: int, out: U8Array) -> None:
        """Rounded rows from ``start`` on."""
        out[...] = self.rounding.round(self.name, self.target)[start : start + len(out)]


def rounded_tensors(
    tensors: Mapping[str, SourceTensor], recipe: Recipe, rounding: Rounding | None
) -> Mapping[str, SourceTensor]:
    """``tensors``, of which those of ``rounding`` have rounded rows in the recipe's formats."""
    if rounding is None:
        return tensors
    found = dict(tensors)
    for name, tensor in tensors.items():
        if rounding.has(name):
            rows = _RoundedRows(tensor.rows, name, recipe.choose(name, tensor.shape).format, rounding)
            found[name] = replace(tensor, rows=rows)
    return found
