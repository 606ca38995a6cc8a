"""What the blocks of a model do with weights, whatever they are stored as.

They ask for ``linear(x, "blk.0.attn_q")`` and never see a format:

- a group format is multiplied by ``MatMulNBits``; with standard operators alone, by ``DequantizeLinear`` and ``Gemm``;
- floats are multiplied by ``Gemm``; halves are widened by a ``Cast``, which onnxruntime does once, when it loads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from sprat.export.onnx.arrays import Arrays, GroupArrays
from sprat.export.onnx.data import StoredWeight
from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.export.onnx.options import OnnxOptions
from sprat.export.source.rows import Alternating, AsFloat32, TransposedHeads, alike
from sprat.export.source.tensor import SourceTensor
from sprat.quant.formats import BlockFormat, get_format
from sprat.quant.formats.groups import GROUP_SIZES, GroupFormat, group_format
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.tensors import tensor_role

__all__ = ["GraphWeights", "onnx_format"]

_FLOAT = ir.DataType.FLOAT
_FLOAT_FORMATS = {"F32", "F16", "BF16"}
_ASYMMETRIC = {"Q4_1", "Q4_K"}  # of ggml's formats with a minimum, those that become four bits
_MOST_BITS_OF_INT4 = 5.0  # bits per weight, scales included
_MOST_PART_BYTES, _MOST_PARTS = 16 << 20, 32  # of the head


class GraphWeights:
    """The weights of a model as operators of ``graph``."""

    def __init__(
        self, graph: GraphBuilder, tensors: Mapping[str, SourceTensor], recipe: Recipe, options: OnnxOptions
    ) -> None:
        self.options, self.arrays = options, Arrays(graph)
        self._graph, self._tensors, self._recipe = graph, tensors, recipe

    def vector(self, name: str) -> Value:
        """A gain, a bias or a router: float32."""
        return self.arrays.float32(StoredWeight(self._tensors[name], get_format("F32")))

    def linear(self, x: Value, name: str, bias: str | None = None) -> Value:
        """``x @ weight.T + bias``: ``["n", in]`` to ``["n", out]``."""
        return self.product(x, self._stored(f"{name}.weight"), bias=None if bias is None else self.vector(bias))

    def product(self, x: Value, weight: StoredWeight, *, part: int | None = None, bias: Value | None = None) -> Value:
        """``x @ weight.T + bias`` with a stored matrix, or with one part of a stack of them."""
        format, (n_out, n_in) = weight.format, weight.source.shape[-2:]
        name = tensor_role(weight.name) + ("" if part is None else f".{part}")
        if not isinstance(format, GroupFormat):
            return self._graph.op("Gemm", x, self.arrays.float32(weight, part), bias, transB=1, name=name)
        if self.options.portable:
            return self._graph.op("Gemm", x, self._dequantized(weight, part), bias, transB=1, name=name)
        arrays = self.arrays.blocks(weight, part)
        return self._graph.op(
            "MatMulNBits",
            *(x, arrays.codes, self._graph.widened(arrays.scales), arrays.zeros, None, bias),
            domain=CONTRIB,
            name=name,
            K=n_in,
            N=n_out,
            bits=format.bits,
            block_size=format.block_size,
            accuracy_level=self.options.accuracy_level,
        )

    def head(self, x: Value, name: str) -> Value:
        """Logits ``["n", vocab_size]``, by parts of the matrix: while onnxruntime packs one, it is in memory twice."""
        weight = self._stored(f"{name}.weight")
        n_rows, n_in = weight.source.shape
        n_parts = _n_parts(n_rows, weight.regions[0].nbytes)
        if n_parts == 1 or self.options.portable or not isinstance(weight.format, GroupFormat):
            return self.product(x, weight)
        stack = replace(weight, source=replace(weight.source, shape=(n_parts, n_rows // n_parts, n_in)))
        return self._graph.op("Concat", *(self.product(x, stack, part=i) for i in range(n_parts)), axis=1)

    def experts(self, layer: int, matrix: str) -> StoredWeight:
        """One matrix of all experts, ``(n_experts, out, in)``."""
        return self._stored(f"blk.{layer}.ffn_{matrix}_exps.weight")

    def fused_experts(self, layer: int) -> tuple[StoredWeight, StoredWeight] | None:
        """Gate and up row by row in turns, and down, in blocks of one size; ``None`` where ``QMoE`` cannot be used."""
        gate, up, down = (self._tensors[f"blk.{layer}.ffn_{matrix}_exps.weight"] for matrix in ("gate", "up", "down"))
        n_experts, width, hidden = gate.shape
        rows = Alternating(alike([gate.rows, up.rows]))
        fused = SourceTensor(f"blk.{layer}.ffn_gate_up_exps.weight", (n_experts, 2 * width, hidden), rows)
        finest = max(self._wanted(gate), self._wanted(up), key=lambda found: found.bits_per_weight)
        formats = [self._format(wanted, math.gcd(width, hidden)) for wanted in (finest, self._wanted(down))]
        if self.options.portable or not all(isinstance(format, GroupFormat) for format in formats):
            return None
        return StoredWeight(fused, formats[0]), StoredWeight(down, formats[1])

    def per_head(self, x: Value, name: str) -> Value:
        """Each head's part of ``x`` ``["n", heads, in]`` times a matrix of its own: ``["n", heads, out]``."""
        weight = self._stored(f"{name}.weight")
        if self.options.portable or not isinstance(weight.format, GroupFormat):
            return self._per_head_of_floats(x, weight.source)
        n_heads = weight.source.shape[0]
        heads = self._graph.ops("Split", x, n_outputs=n_heads, axis=1, num_outputs=n_heads)
        return self._graph.op("Concat", *(self.product(head, weight, part=i) for i, head in enumerate(heads)), axis=1)

    def embedding(self, tokens: Value) -> Value:
        """Rows of the token embedding: ``["n"]`` to ``["n", hidden]``."""
        weight = self._stored("token_embd.weight")
        if not isinstance(weight.format, GroupFormat):
            rows = self._graph.op("Gather", self.arrays.floats(weight), tokens)
        elif self.options.portable:
            return self._unpacked_rows(self.arrays.rows(weight), weight.format, tokens)
        else:
            arrays = self.arrays.rows(weight)
            rows = self._graph.op(
                "GatherBlockQuantized",
                *(arrays.codes, tokens, arrays.scales, arrays.zeros),
                domain=CONTRIB,
                bits=weight.format.bits,
                block_size=weight.format.block_size,
                gather_axis=0,
                quantize_axis=1,
            )
        return self._graph.op("Cast", rows, to=_FLOAT)

    def _stored(self, name: str) -> StoredWeight:
        source = self._tensors[name]
        return StoredWeight(source, self._format(self._wanted(source), source.shape[-1]), signed=self.options.portable)

    def _wanted(self, source: SourceTensor) -> BlockFormat:
        return self._recipe.choose(source.name, source.shape).wanted

    def _format(self, wanted: BlockFormat, row: int) -> BlockFormat:
        return onnx_format(wanted, row, self.options.block_size)

    def _dequantized(self, weight: StoredWeight, part: int | None) -> Value:
        """The whole matrix as float32."""
        arrays = self.arrays.standard(weight, part)
        inputs = (arrays.codes, self._graph.widened(arrays.scales), arrays.zeros)
        return self._graph.op("DequantizeLinear", *inputs, axis=-1, block_size=weight.format.block_size)

    def _per_head_of_floats(self, x: Value, source: SourceTensor) -> Value:
        """With one ``MatMul``, whose matrices stand transposed."""
        n_heads, n_out, n_in = source.shape
        rows = TransposedHeads(AsFloat32(source.rows), n_heads, n_out)
        wanted = self._wanted(source)
        format = wanted if wanted.name in _FLOAT_FORMATS else get_format("F16")
        matrix = StoredWeight(SourceTensor(source.name, (n_heads, n_in, n_out), rows), format)
        heads_first = self._graph.op("Transpose", x, perm=[1, 0, 2])
        name = tensor_role(source.name)
        return self._graph.op(
            "Transpose", self._graph.op("MatMul", heads_first, self.arrays.float32(matrix), name=name), perm=[1, 0, 2]
        )

    def _unpacked_rows(self, arrays: GroupArrays, format: GroupFormat, tokens: Value) -> Value:
        """Rows of a portable embedding: gathered as bytes, then unpacked and scaled."""
        graph = self._graph
        codes, scales = (graph.op("Gather", array, tokens) for array in (arrays.codes, arrays.scales))
        if format.bits == 4:
            codes = _nibbles(graph, codes)
        if format.symmetric:  # from two's complement
            codes = graph.op("BitwiseXor", codes, graph.constant(format.half_range, np.uint8))
        levels = graph.op("Cast", graph.op("Reshape", codes, graph.constant([0, -1, format.block_size])), to=_FLOAT)
        if arrays.zeros is None:
            zero = graph.constant(format.half_range, np.float32)
        else:
            zeros = graph.op("Gather", arrays.zeros, tokens)
            zeros = graph.op("Cast", _nibbles(graph, zeros) if format.bits == 4 else zeros, to=_FLOAT)
            zero = graph.op("Unsqueeze", zeros, graph.constant([2]))
        scale = graph.op("Unsqueeze", graph.op("Cast", scales, to=_FLOAT), graph.constant([2]))
        blocks = graph.op("Mul", graph.op("Sub", levels, zero), scale)
        return graph.op("Reshape", blocks, graph.constant([0, -1]))


def _n_parts(n_rows: int, nbytes: int) -> int:
    """The least number of equal parts of at most ``_MOST_PART_BYTES``; as many as possible where none are so small."""
    divisors = [number for number in range(1, _MOST_PARTS + 1) if n_rows % number == 0]
    return next((number for number in divisors if nbytes <= number * _MOST_PART_BYTES), divisors[-1])


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
    if wanted.name in _FLOAT_FORMATS:
        return wanted
    bits = 4 if wanted.bits_per_weight <= _MOST_BITS_OF_INT4 else 8
    sizes = [size for size in reversed(GROUP_SIZES) if size <= block_size and row % size == 0]
    return group_format(bits, sizes[0], symmetric=wanted.name not in _ASYMMETRIC) if sizes else get_format("F16")
