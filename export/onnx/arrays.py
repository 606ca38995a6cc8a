"""The arrays of weights as initializers of a graph, with the types and shapes that its operators take.

All operators read the same bytes; :mod:`sprat.export.onnx.data` gives their offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from sprat.alignment import ceil_div
from sprat.export.onnx.data import DataFile, OnnxWeight, Region
from sprat.export.onnx.graph import GraphBuilder, Value

__all__ = ["DATA_NAME", "Arrays", "GroupArrays"]

DATA_NAME = "model.onnx.data"

_UINT8, _FLOAT16 = ir.DataType.UINT8, ir.DataType.FLOAT16
_FLOATS = {"F32": ir.DataType.FLOAT, "F16": _FLOAT16, "BF16": ir.DataType.BFLOAT16}
_SIGNED = {4: ir.DataType.INT4, 8: ir.DataType.INT8}
_UNSIGNED = {4: ir.DataType.UINT4, 8: ir.DataType.UINT8}

_Array = tuple[str, ir.DataType, tuple[int, ...]]  # suffix of the weight's name, type, shape


@dataclass(frozen=True, slots=True, eq=False)
class GroupArrays:
    """The arrays of a weight in a group format; scales are float16."""

    codes: Value
    scales: Value
    zeros: Value | None = None


class Arrays:
    """Initializers of ``graph``; each weight is placed in ``data`` when it is first used.

    ``part`` selects the matrix of one expert or head from a stack.
    """

    def __init__(self, graph: GraphBuilder) -> None:
        self.data = DataFile()
        self._graph = graph
        self._regions: dict[str, tuple[Region, ...]] = {}
        self._initializers: dict[str, Value] = {}

    def floats(self, weight: OnnxWeight, part: int | None = None) -> Value:
        """A float weight in its stored type."""
        (value,) = self._values(weight, [("", _FLOATS[weight.format.name], weight.source.shape)], part)
        return value

    def float32(self, weight: OnnxWeight, part: int | None = None) -> Value:
        """A float weight converted to float32 if it is not stored so."""
        value = self.floats(weight, part)
        return value if weight.format.name == "F32" else self._graph.as_float32(value)

    def rows(self, weight: OnnxWeight) -> GroupArrays:
        """Codes ``(..., bytes)``, for ``QMoE`` and for rows of the embedding."""
        *outer, n_in = weight.source.shape
        return self._bytes(weight, ".rows", (*outer, n_in * weight.bits // 8), None)

    def blocks(self, weight: OnnxWeight, part: int | None = None) -> GroupArrays:
        """Codes ``(..., blocks, bytes)``, for ``MatMulNBits``."""
        (*outer, n_in), size = weight.source.shape, weight.format.block_size
        return self._bytes(weight, ".blocks", (*outer, n_in // size, size * weight.bits // 8), part)

    def standard(self, weight: OnnxWeight, part: int | None = None) -> GroupArrays:
        """Codes and zero points of ONNX's integer types, for ``DequantizeLinear``."""
        (*outer, n_in), bits = weight.source.shape, weight.bits
        code = (_SIGNED if len(weight.regions) == 2 else _UNSIGNED)[bits]  # with zero points codes are unsigned
        blocks = (*outer, n_in // weight.format.block_size)
        arrays = [(".codes", code, (*outer, n_in)), (".scales", _FLOAT16, blocks), (".zeros", code, blocks)]
        return GroupArrays(*self._values(weight, arrays, part))

    def _bytes(self, weight: OnnxWeight, name: str, codes: tuple[int, ...], part: int | None) -> GroupArrays:
        (*outer, n_in), size = weight.source.shape, weight.format.block_size
        n_blocks = n_in // size
        zeros = (*outer, ceil_div(n_blocks * weight.bits, 8))
        arrays = [(name, _UINT8, codes), (".scales", _FLOAT16, (*outer, n_blocks)), (".zeros", _UINT8, zeros)]
        return GroupArrays(*self._values(weight, arrays, part))

    def _values(self, weight: OnnxWeight, arrays: Sequence[_Array], part: int | None) -> list[Value]:
        """The first ``arrays``, one per region of the weight."""
        if weight.name not in self._regions:
            self._regions[weight.name] = self.data.place(weight)
        found = []
        for region, (suffix, dtype, shape) in zip(self._regions[weight.name], arrays, strict=False):
            if part is None:
                found.append(self._initializer(weight.name + suffix, region, dtype, shape))
            else:
                part_region = region.part(part, shape[0])
                found.append(self._initializer(f"{weight.name}{suffix}.{part}", part_region, dtype, shape[1:]))
        return found

    def _initializer(self, name: str, region: Region, dtype: ir.DataType, shape: tuple[int, ...]) -> Value:
        if name not in self._initializers:
            tensor = ir.ExternalTensor(DATA_NAME, region.begin, region.nbytes, dtype, shape=ir.Shape(shape), name=name)
            self._initializers[name] = self._graph.initializer(tensor)
        return self._initializers[name]
