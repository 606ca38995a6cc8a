"""Operations with weights, whatever their format.

Model code calls ``linear(x, "blk.0.attn_q")``, and the format decides the operators:

- group formats: ``MatMulNBits``; with standard operators only, ``DequantizeLinear`` and ``Gemm``;
- floats: ``Gemm``; float16 goes through a ``Cast`` to float32, which onnxruntime folds when it loads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from sprat.export.onnx.arrays import Arrays, GroupArrays
from sprat.export.onnx.data import OnnxWeight
from sprat.export.onnx.graph import CONTRIB, GraphBuilder, Value
from sprat.export.onnx.options import OnnxOptions
from sprat.export.onnx.ort_version import FAST_QMOE, FLOAT_INT8
from sprat.export.source.rows import AlternatingRows, AsFloat32, TransposedHeads, in_one_format
from sprat.export.source.tensor import SourceTensor
from sprat.quant.formats import BlockFormat, get_format
from sprat.quant.formats.groups import GROUP_SIZES, GroupFormat, group_format
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.tensors import tensor_role

__all__ = ["GraphWeights", "onnx_format"]

_FLOAT = ir.DataType.FLOAT
_FLOAT_FORMATS = {"F32", "F16", "BF16"}
_ASYMMETRIC = {"Q4_1", "Q4_K"}  # ggml formats with a minimum that become 4-bit
_BLOCKS_OPSET = 21  # DequantizeLinear of blocks, and 4-bit integers
_MAX_INT4_BITS = 5.0  # bits per weight, scales included
_MAX_PART_BYTES, _MAX_PARTS = 16 << 20, 32  # of the output head


class GraphWeights:
    """The weights of a model as operators of ``graph``."""

    def __init__(
        self, graph: GraphBuilder, tensors: Mapping[str, SourceTensor], recipe: Recipe, options: OnnxOptions
    ) -> None:
        self.options, self.arrays = options, Arrays(graph)
        self._graph, self._tensors, self._recipe = graph, tensors, recipe

    def vector(self, name: str) -> Value:
        """A gain, a bias or a router, as float32."""
        return self.arrays.float32(OnnxWeight(self._tensors[name], get_format("F32")))

    def linear(self, x: Value, name: str, bias: str | None = None) -> Value:
        """``x @ weight.T + bias``: ``["n", in]`` to ``["n", out]``."""
        return self.product(x, self.stored(f"{name}.weight"), bias=None if bias is None else self.vector(bias))

    def product(self, x: Value, weight: OnnxWeight, *, part: int | None = None, bias: Value | None = None) -> Value:
        """``x @ weight.T + bias`` with a matrix, or with matrix ``part`` of a stack."""
        format, (n_out, n_in) = weight.format, weight.source.shape[-2:]
        name = tensor_role(weight.name) + ("" if part is None else f".{part}")
        if not isinstance(format, GroupFormat):
            return self._graph.op("Gemm", x, self.arrays.float32(weight, part), bias, transB=1, name=name)
        if self.options.portable:
            return self._graph.op("Gemm", x, self._dequantized(weight, part), bias, transB=1, name=name)
        if format.bits == 8 and not self.options.accuracy_level:
            self._graph.needs(ort=FLOAT_INT8)
        arrays = self.arrays.blocks(weight, part)
        return self._graph.op(
            "MatMulNBits",
            *(x, arrays.codes, self._graph.as_float32(arrays.scales), arrays.zeros, None, bias),
            domain=CONTRIB,
            name=name,
            K=n_in,
            N=n_out,
            bits=format.bits,
            block_size=format.block_size,
            **self.accuracy,
        )

    def head(self, x: Value, name: str) -> Value:
        """Logits ``["n", vocab_size]``; the matrix is split, since onnxruntime holds a part twice while it packs it."""
        weight = self.stored(f"{name}.weight")
        n_rows, n_in = weight.source.shape
        n_parts = _n_parts(n_rows, weight.regions[0].nbytes)
        if n_parts == 1 or self.options.portable or not isinstance(weight.format, GroupFormat):
            return self.product(x, weight)
        stack = replace(weight, source=replace(weight.source, shape=(n_parts, n_rows // n_parts, n_in)))
        return self._graph.op("Concat", *(self.product(x, stack, part=i) for i in range(n_parts)), axis=1)

    def qmoe_experts(self, layer: int) -> tuple[OnnxWeight, OnnxWeight]:
        """Gate and up with alternating rows, ``(n_experts, 2 * width, hidden)``, and down, of all experts."""
        gate, up, down = self._experts(layer)
        _, width, hidden = gate.shape
        finest = max(self._wanted(gate), self._wanted(up), key=lambda found: found.bits_per_weight)
        common = math.gcd(width, hidden)  # QMoE has one block size
        formats = [self._format(wanted, common) for wanted in (finest, self._wanted(down))]
        return OnnxWeight(_gate_up(gate, up), formats[0]), OnnxWeight(down, formats[1])

    def gate_up(self, layer: int) -> list[OnnxWeight]:
        """Gate and up of all experts, in one stack as ``QMoE`` takes it if they share a format, else in two."""
        gate, up, _ = self._experts(layer)
        stacks = [self.stored(gate.name), self.stored(up.name)]
        if stacks[0].format != stacks[1].format or gate.format != up.format:
            return stacks
        return [replace(stacks[0], source=_gate_up(gate, up))]

    def down(self, layer: int) -> OnnxWeight:
        """Down of all experts, ``(n_experts, hidden, width)``."""
        return self.stored(self._experts(layer)[2].name)

    def takes_qmoe(self, layer: int) -> bool:
        """Whether ``QMoE`` computes the experts of ``layer``: an onnxruntime that has a fast one, and codes."""
        is_quantized = all(isinstance(weight.format, GroupFormat) for weight in self.qmoe_experts(layer))
        return is_quantized and not self.options.portable and self.options.ort >= FAST_QMOE

    @property
    def accuracy(self) -> dict[str, Any]:
        """The attribute ``accuracy_level`` of products, unless it is the default."""
        level = self.options.accuracy_level
        return {"accuracy_level": level} if level else {}

    def per_head(self, x: Value, name: str) -> Value:
        """Each head of ``x`` ``["n", heads, in]`` times its own matrix: ``["n", heads, out]``."""
        weight = self.stored(f"{name}.weight")
        if self.options.portable or not isinstance(weight.format, GroupFormat):
            return self._per_head_float(x, weight.source)
        n_heads = weight.source.shape[0]
        heads = self._graph.ops("Split", x, n_outputs=n_heads, axis=1, num_outputs=n_heads)
        return self._graph.op("Concat", *(self.product(head, weight, part=i) for i, head in enumerate(heads)), axis=1)

    def embedding(self, tokens: Value) -> Value:
        """Rows of the token embedding: ``["n"]`` to ``["n", hidden]``."""
        weight = self.stored("token_embd.weight")
        if isinstance(weight.format, GroupFormat):
            return self._dequantized_rows(self.arrays.rows(weight), weight, tokens)
        return self._graph.op("Cast", self._graph.op("Gather", self.arrays.floats(weight), tokens), to=_FLOAT)

    def stored(self, name: str) -> OnnxWeight:
        """A matrix or a stack of matrices in the format that the recipe has for it."""
        source = self._tensors[name]
        return OnnxWeight(source, self._format(self._wanted(source), source.shape[-1]), signed=self.options.portable)

    def _experts(self, layer: int) -> tuple[SourceTensor, SourceTensor, SourceTensor]:
        """Gate, up and down of the experts of ``layer``."""
        gate, up, down = (self._tensors[f"blk.{layer}.ffn_{part}_exps.weight"] for part in ("gate", "up", "down"))
        return gate, up, down

    def _wanted(self, source: SourceTensor) -> BlockFormat:
        return self._recipe.choose(source.name, source.shape).wanted

    def _format(self, wanted: BlockFormat, row: int) -> BlockFormat:
        return onnx_format(wanted, row, self.options.block_size)

    def _dequantized(self, weight: OnnxWeight, part: int | None) -> Value:
        """The matrix dequantized to float32."""
        self._graph.needs(opset=_BLOCKS_OPSET)
        arrays = self.arrays.standard(weight, part)
        inputs = (arrays.codes, self._graph.as_float32(arrays.scales), arrays.zeros)
        return self._graph.op("DequantizeLinear", *inputs, axis=-1, block_size=weight.format.block_size)

    def _per_head_float(self, x: Value, source: SourceTensor) -> Value:
        """One batched ``MatMul`` with transposed float matrices."""
        n_heads, n_out, n_in = source.shape
        rows = TransposedHeads(AsFloat32(source.rows), n_heads, n_out)
        wanted = self._wanted(source)
        format = wanted if wanted.name in _FLOAT_FORMATS else get_format("F16")
        matrix = OnnxWeight(SourceTensor(source.name, (n_heads, n_in, n_out), rows), format)
        heads_first = self._graph.op("Transpose", x, perm=[1, 0, 2])
        name = tensor_role(source.name)
        return self._graph.op(
            "Transpose", self._graph.op("MatMul", heads_first, self.arrays.float32(matrix), name=name), perm=[1, 0, 2]
        )

    def _dequantized_rows(self, arrays: GroupArrays, weight: OnnxWeight, tokens: Value) -> Value:
        """Rows of an embedding, gathered as bytes and dequantized.

        ``GatherBlockQuantized`` takes neither 8 bits nor zero points before onnxruntime 1.24, and rounds to float16.
        """
        graph, format = self._graph, weight.format
        assert isinstance(format, GroupFormat), "floats are gathered as they are"
        codes, scales = (graph.op("Gather", array, tokens) for array in (arrays.codes, arrays.scales))
        if format.bits == 4:
            codes = _nibbles(graph, codes)
        if format.symmetric and weight.signed:  # from two's complement
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


def _gate_up(gate: SourceTensor, up: SourceTensor) -> SourceTensor:
    """Gate and up of all experts with alternating rows, ``(n_experts, 2 * width, hidden)``."""
    n_experts, width, hidden = gate.shape
    rows = AlternatingRows(in_one_format([gate.rows, up.rows]))
    return SourceTensor(gate.name.replace("ffn_gate_exps", "ffn_gate_up_exps"), (n_experts, 2 * width, hidden), rows)


def _n_parts(n_rows: int, nbytes: int) -> int:
    """The smallest number of equal parts of at most ``_MAX_PART_BYTES``; else the largest possible number."""
    divisors = [n for n in range(1, _MAX_PARTS + 1) if n_rows % n == 0]
    return next((n for n in divisors if nbytes <= n * _MAX_PART_BYTES), divisors[-1])


def _nibbles(graph: GraphBuilder, packed: Value) -> Value:
    """``["n", h]`` bytes as ``["n", 2 h]`` 4-bit codes, the low nibble of each byte first."""
    low = graph.op("BitwiseAnd", packed, graph.constant(15, np.uint8))
    high = graph.op("BitShift", packed, graph.constant(4, np.uint8), direction="RIGHT")
    pairs = graph.op("Concat", *(graph.op("Unsqueeze", half, graph.constant([2])) for half in (low, high)), axis=2)
    return graph.op("Reshape", pairs, graph.constant([0, -1]))


def onnx_format(wanted: BlockFormat, row: int, block_size: int) -> BlockFormat:
    """The ONNX format nearest to ``wanted`` for rows of ``row`` weights: the same float format, 4 or 8 bits.

    Blocks have at most ``block_size`` weights; rows that do not divide into blocks become float16.
    """
    if wanted.name in _FLOAT_FORMATS:
        return wanted
    bits = 4 if wanted.bits_per_weight <= _MAX_INT4_BITS else 8
    sizes = [size for size in reversed(GROUP_SIZES) if size <= block_size and row % size == 0]
    return group_format(bits, sizes[0], symmetric=wanted.name not in _ASYMMETRIC) if sizes else get_format("F16")
