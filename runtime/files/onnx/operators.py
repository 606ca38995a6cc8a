"""The operators of a graph that an engine loads: those that sprat's exporter writes, and no loops or large constants.

onnxruntime runs whatever a graph says: ``Loop`` without an end, or ``ConstantOfShape`` of a terabyte. A graph of sprat
needs neither, so a graph with other operators is refused. Operators that make an array from a shape take the shape of
another array only, and arrays do not grow by concatenation (:mod:`~sprat.runtime.files.onnx.concatenation`). A graph
whose arrays grow by products, of broadcast shapes say, is not recognized.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sprat.runtime.files.onnx.checks import all_graphs, external_fields, tensor_nbytes, tensors_of, text
from sprat.runtime.files.onnx.concatenation import concatenation_problems

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["operator_problems"]

_STANDARD = (
    "Add BitShift BitwiseAnd BitwiseXor Cast Concat Cos DequantizeLinear Div Equal Expand Gather GatherElements "
    "GatherND Gemm Greater Identity If MatMul Mul Neg NonZero RMSNormalization Range ReduceMax ReduceMean ReduceSum "
    "Reshape Round ScatterElements ScatterND Shape Sigmoid SimplifiedLayerNormalization Sin Slice Softmax Split Sqrt "
    "Squeeze Sub TopK Transpose Unsqueeze Where"
)
_CONTRIB = (
    "GatherBlockQuantized GroupQueryAttention MatMulNBits QMoE RotaryEmbedding SimplifiedLayerNormalization "
    "SkipSimplifiedLayerNormalization"
)
_OPERATORS = {"": frozenset(_STANDARD.split()), "com.microsoft": frozenset(_CONTRIB.split())}
_MAX_CONSTANT_BYTES = 1 << 16  # of a tensor inside the graph; weights are outside
_MAX_NODES = 1 << 20  # DeepSeek-V3 has about 300,000


def operator_problems(model: ModelProto) -> Iterator[str]:
    """Operators and constants that sprat's exporter does not write, as clauses of one message."""
    nodes = [node for graph in all_graphs(model) for node in graph.node]
    if model.functions or len(nodes) > _MAX_NODES:
        yield f"{len(model.functions)} functions and {len(nodes):,} nodes, expected none and at most {_MAX_NODES:,}"
    foreign = {_name(node) for node in nodes if node.op_type not in _OPERATORS.get(node.domain, ())}
    for name in sorted(foreign):
        yield f"the operator {name[:80]}, which sprat's exporter does not write"
    makers = {output: node for node in nodes for output in node.output}
    for node in nodes:
        if node.op_type in {"Expand", "Range"} and not _is_as_large_as_another(node, makers):
            yield f"{node.op_type} {node.name[:80]!r} makes an array of a size of its own"
    yield from concatenation_problems(model.graph)
    for tensor in tensors_of(model):
        if external_fields(tensor):
            continue
        if (nbytes := max(tensor_nbytes(tensor), tensor.ByteSize())) > _MAX_CONSTANT_BYTES:
            expected = f"expected at most {_MAX_CONSTANT_BYTES:,}"
            yield f"tensor {tensor.name[:80]!r} has {nbytes:,} bytes in the graph, {expected}"


def _name(node: NodeProto) -> str:
    return ".".join(filter(None, (text(node.domain), text(node.op_type))))


def _is_as_large_as_another(node: NodeProto, makers: dict[str, NodeProto]) -> bool:
    """Whether the size of ``Expand`` or ``Range`` is the shape of another array."""
    if len(node.input) < 2:
        return False
    size = makers.get(node.input[1])
    if node.op_type == "Range" and size is not None and size.op_type == "Squeeze":
        size = makers.get(size.input[0])
    return size is not None and size.op_type == "Shape"
