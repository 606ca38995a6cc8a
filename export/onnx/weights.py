"""The weights of a graph: which format each gets, where it lies, and the operator that multiplies with it.

Blocks of the model ask for ``linear(x, "blk.0.attn_q")`` and never see a format:

- a group format is multiplied by ``MatMulNBits``; with standard operators alone, by ``DequantizeLinear`` and ``Gemm``;
- floats are multiplied by ``Gemm``; halves are widened by a ``Cast``, which onnxruntime does once, when it loads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sprat.export.onnx.data import DataFile, Region, StoredWeight
from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.export.onnx.options import OnnxOptions
from sprat.export.rows import Alternating, AsFloat32, TransposedHeads, alike
from sprat.export.source_tensor import SourceTensor
from sprat.quant.formats import BlockFormat, get_format
from sprat.quant.formats.groups import GROUP_SIZES, GroupFormat, group_format
from sprat.quant.recipe import Recipe

__all__ = ["DATA_NAME", "GraphWeights", "onnx_format"]

DATA_NAME = "model.onnx.data"
_FLOATS = {"F32": ir.DataType.FLOAT, "F16": ir.DataType.FLOAT16, "BF16": ir.DataType.BFLOAT16}
_FLOAT = ir.DataType.FLOAT
_SIGNED = {4: ir.DataType.INT4, 8: ir.DataType.INT8}
_UNSIGNED = {4: ir.DataType.UINT4, 8: ir.DataType.UINT8}
_ASYMMETRIC = {"Q4_1", "Q4_K"}  # of ggml's formats with a minimum, those that become four bits
_MOST_BITS_OF_INT4 = 5  # bits per weight, scales included


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """The arrays of a weight in a group format."""

    codes: Value
    scales: Value
    zeros: Value | None = None


class GraphWeights:
    """Weights by canonical name; each is stored when the graph first asks for it."""

    def __init__(
        self, graph: GraphBuilder, tensors: Mapping[str, SourceTensor], recipe: Recipe, options: OnnxOptions
    ) -> None:
        self.options, self.data = options, DataFile()
        self._graph, self._tensors, self._recipe = graph, tensors, recipe
        self._regions: dict[str, tuple[Region, ...]] = {}
        self._initializers: dict[str, Value] = {}

    def vector(self, name: str) -> Value:
        """A gain or a bias: float32."""
        return self._float(StoredWeight(self._tensors[name], get_format("F32")))

    def linear(self, x: Value, name: str, bias: str | None = None) -> Value:
        """``x @ weight.T + bias``: ``["n", in]`` to ``["n", out]``."""
        source = self._tensors[f"{name}.weight"]
        return self.product(x, self.stored([source]), None if bias is None else self.vector(bias))

    def stored(self, sources: Sequence[SourceTensor]) -> StoredWeight:
        """The first of ``sources`` in the most precise format that the recipe wants for one of them."""
        format = onnx_format(self._finest(*sources), sources[0].shape[-1], self.options.block_size)
        return StoredWeight(sources[0], format, signed=self.options.portable)

    def _finest(self, *sources: SourceTensor) -> BlockFormat:
        wanted = [self._recipe.choose(source.name, source.shape).wanted for source in sources]
        return max(wanted, key=lambda found: found.bits_per_weight)

    def product(self, x: Value, weight: StoredWeight, bias: Value | None = None, expert: int | None = None) -> Value:
        """``x @ weight.T + bias`` with a stored matrix, or with that of one expert."""
        format, (n_out, n_in) = weight.format, weight.source.shape[-2:]
        if not isinstance(format, GroupFormat):
            return self._graph.op("Gemm", x, self._float(weight, expert), bias, transB=1)
        if self.options.portable:
            return self._graph.op("Gemm", x, self._dequantized(weight, expert), bias, transB=1)
        arrays = self._blocks(weight, expert)
        return self._graph.op(
            "MatMulNBits",
            *(x, arrays.codes, self._graph.widened(arrays.scales), arrays.zeros, None, bias),
            domain=CONTRIB,
            K=n_in,
            N=n_out,
            bits=format.bits,
            block_size=format.block_size,
            accuracy_level=self.options.accuracy_level,
        )

    def experts(self, layer: int, part: str) -> StoredWeight:
        """One matrix of all experts, ``(n_experts, out, in)``."""
        return self.stored([self._tensors[f"blk.{layer}.ffn_{part}_exps.weight"]])

    def fused_experts(self, layer: int) -> tuple[StoredWeight, StoredWeight] | None:
        """Gate and up row by row in turns, and down, in blocks of one size; ``None`` where ``QMoE`` cannot be used."""
        gate, up, down = (self._tensors[f"blk.{layer}.ffn_{part}_exps.weight"] for part in ("gate", "up", "down"))
        n_experts, width, hidden = gate.shape
        name = f"blk.{layer}.ffn_gate_up_exps.weight"
        rows = Alternating(alike([gate.rows, up.rows]))
        fused = SourceTensor(name, (n_experts, 2 * width, hidden), rows)
        finest = [self._finest(gate, up), self._finest(down)]
        formats = [onnx_format(wanted, math.gcd(width, hidden), self.options.block_size) for wanted in finest]
        if self.options.portable or not all(isinstance(format, GroupFormat) for format in formats):
            return None
        return StoredWeight(fused, formats[0]), StoredWeight(down, formats[1])

    def per_head(self, x: Value, name: str) -> Value:
        """Each head's part of ``x`` ``["n", heads, in]`` times a matrix of its own: ``["n", heads, out]``."""
        source = self._tensors[f"{name}.weight"]
        weight = self.stored([source])
        if self.options.portable or not isinstance(weight.format, GroupFormat):
            return self._per_head_float(x, source)
        n_heads = source.shape[0]
        parts = self._graph.ops("Split", x, n_outputs=n_heads, axis=1, num_outputs=n_heads)
        products = [self.product(part, weight, expert=head) for head, part in enumerate(parts)]
        return self._graph.op("Concat", *products, axis=1)

    def _per_head_float(self, x: Value, source: SourceTensor) -> Value:
        n_heads, n_out, n_in = source.shape
        rows = TransposedHeads(AsFloat32(source.rows), n_heads, n_out)
        wanted = self._recipe.choose(source.name, source.shape).wanted
        format = wanted if wanted.name in _FLOATS else get_format("F16")
        matrix = self._float(StoredWeight(SourceTensor(source.name, (n_heads, n_in, n_out), rows), format))
        swapped = self._graph.op("MatMul", self._graph.op("Transpose", x, perm=[1, 0, 2]), matrix)
        return self._graph.op("Transpose", swapped, perm=[1, 0, 2])

    def embedding(self, tokens: Value) -> Value:
        """Rows of the token embedding: ``["n"]`` to ``["n", hidden]``."""
        weight = self.stored([self._tensors["token_embd.weight"]])
        if not isinstance(weight.format, GroupFormat):
            return self._graph.op("Cast", self._graph.op("Gather", self._floats(weight), tokens), to=_FLOAT)
        if self.options.portable:
            return self._unpacked_rows(weight, tokens)
        arrays, format = self.rows(weight), weight.format
        found = self._graph.op(
            "GatherBlockQuantized",
            *(arrays.codes, tokens, arrays.scales, arrays.zeros),
            domain=CONTRIB,
            bits=format.bits,
            block_size=format.block_size,
            gather_axis=0,
            quantize_axis=1,
        )
        return self._graph.op("Cast", found, to=ir.DataType.FLOAT)

    def _unpacked_rows(self, weight: StoredWeight, tokens: Value) -> Value:
        """Rows of a group format with standard operators: gathered as bytes, then unpacked and scaled."""
        format, hidden = weight.format, weight.source.shape[-1]
        assert isinstance(format, GroupFormat), f"{weight.name}: {format} has no groups"
        arrays = self.rows(weight)
        codes, scales = (self._graph.op("Gather", value, tokens) for value in (arrays.codes, arrays.scales))
        if format.bits == 4:
            codes = _nibbles(self._graph, codes)
        if format.symmetric:  # from two's complement
            codes = self._graph.op("BitwiseXor", codes, self._graph.constant(format.half_range, np.uint8))
        levels = self._graph.op(
            "Cast", self._graph.op("Reshape", codes, self._graph.constant([0, -1, format.block_size])), to=_FLOAT
        )
        if arrays.zeros is None:
            zero = self._graph.constant(format.half_range, np.float32)
        else:
            zeros = self._graph.op("Gather", arrays.zeros, tokens)
            zero = self._graph.op("Cast", _nibbles(self._graph, zeros) if format.bits == 4 else zeros, to=_FLOAT)
            zero = self._graph.op("Unsqueeze", zero, self._graph.constant([2]))
        scale = self._graph.op("Unsqueeze", self._graph.op("Cast", scales, to=_FLOAT), self._graph.constant([2]))
        blocks = self._graph.op("Mul", self._graph.op("Sub", levels, zero), scale)
        return self._graph.op("Reshape", blocks, self._graph.constant([-1, hidden]))

    def rows(self, weight: StoredWeight) -> Arrays:
        """A weight as ``QMoE`` and ``GatherBlockQuantized`` have it: codes ``(..., bytes)``."""
        *outer, n_in = weight.source.shape
        n_blocks = n_in // weight.group_size
        types = (ir.DataType.UINT8, ir.DataType.FLOAT16, ir.DataType.UINT8)
        bits = weight.group_bits
        widths = (n_in * bits // 8, n_blocks, -(-n_blocks * bits // 8))
        return self._arrays(weight, "rows", types, [(*outer, width) for width in widths])

    def _blocks(self, weight: StoredWeight, expert: int | None) -> Arrays:
        """A matrix as ``MatMulNBits`` has it: codes ``(out, blocks, bytes)``."""
        *outer, n_in = weight.source.shape
        n_blocks, bits = n_in // weight.group_size, weight.group_bits
        types = (ir.DataType.UINT8, ir.DataType.FLOAT16, ir.DataType.UINT8)
        widths = ((n_blocks, weight.group_size * bits // 8), (n_blocks,), (-(-n_blocks * bits // 8),))
        return self._arrays(weight, "blocks", types, [(*outer, *width) for width in widths], expert)

    def _arrays(
        self,
        weight: StoredWeight,
        kind: str,
        types: Sequence[ir.DataType],
        shapes: Sequence[tuple[int, ...]],
        expert: int | None = None,
    ) -> Arrays:
        """Codes, scales and perhaps zero points, whole or of one expert."""
        regions, names = self._place(weight), [f"{weight.name}.{part}" for part in (kind, "scales", "zeros")]
        if expert is not None:
            regions = tuple(region.part(expert, shapes[0][0]) for region in regions)
            shapes, names = [shape[1:] for shape in shapes], [f"{name}.{expert}" for name in names]
        found = [self._initializer(*one) for one in zip(names, regions, types, shapes, strict=False)]
        return Arrays(*found)

    def _dequantized(self, weight: StoredWeight, expert: int | None = None) -> Value:
        """The whole matrix as float32, with a standard operator: codes are signed, or have zero points."""
        shape, format = weight.source.shape, weight.format
        assert isinstance(format, GroupFormat), f"{weight.name}: {format} has no groups"
        blocks = (*shape[:-1], shape[-1] // format.block_size)
        code = (_SIGNED if format.symmetric else _UNSIGNED)[format.bits]
        types = (code, ir.DataType.FLOAT16, code)
        arrays = self._arrays(weight, "codes", types, [shape, blocks, blocks], expert)
        scales = self._graph.widened(arrays.scales)
        return self._graph.op(
            "DequantizeLinear", arrays.codes, scales, arrays.zeros, axis=-1, block_size=format.block_size
        )

    def _float(self, weight: StoredWeight, expert: int | None = None) -> Value:
        value = self._floats(weight, expert)
        return value if weight.format.name == "F32" else self._graph.widened(value)

    def _floats(self, weight: StoredWeight, expert: int | None = None) -> Value:
        """As they are stored."""
        (region,), name, shape = self._place(weight), weight.name, weight.source.shape
        if expert is not None:
            region, name, shape = region.part(expert, shape[0]), f"{name}.{expert}", shape[1:]
        return self._initializer(name, region, _FLOATS[weight.format.name], shape)

    def _place(self, weight: StoredWeight) -> tuple[Region, ...]:
        if weight.name not in self._regions:
            self._regions[weight.name] = self.data.place(weight)
        return self._regions[weight.name]

    def _initializer(self, name: str, region: Region, dtype: ir.DataType, shape: tuple[int, ...]) -> Value:
        if name not in self._initializers:
            tensor = ir.ExternalTensor(DATA_NAME, region.begin, region.nbytes, dtype, shape=ir.Shape(shape), name=name)
            self._initializers[name] = self._graph.initializer(tensor)
        return self._initializers[name]


def _nibbles(graph: GraphBuilder, packed: Value) -> Value:
    """``["n", h]`` bytes as ``["n", 2 h]`` codes, the lower half of each byte first."""
    low = graph.op("BitwiseAnd", packed, graph.constant(15, np.uint8))
    high = graph.op("BitShift", packed, graph.constant(4, np.uint8), direction="RIGHT")
    pairs = graph.op("Concat", *(graph.op("Unsqueeze", half, graph.constant([2])) for half in (low, high)), axis=2)
    return graph.op("Reshape", pairs, graph.constant([0, -1]))


def onnx_format(wanted: BlockFormat, row: int, block_size: int) -> BlockFormat:
    """What comes nearest to ``wanted`` in ONNX for rows of ``row`` weights: the same floats, four bits, or eight.

    Blocks have at most ``block_size`` weights; rows that no block divides are halves.
    """
    if wanted.name in _FLOATS:
        return wanted
    bits = 4 if wanted.bits_per_weight < _MOST_BITS_OF_INT4 + 1e-9 else 8
    sizes = [size for size in reversed(GROUP_SIZES) if size <= block_size and row % size == 0]
    return group_format(bits, sizes[0], symmetric=wanted.name not in _ASYMMETRIC) if sizes else get_format("F16")
