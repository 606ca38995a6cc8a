"""Growth of arrays by concatenation in a graph: forty times ``Concat(x, x)`` make a terabyte of one number.

A graph of sprat concatenates halves, heads and the outputs of experts, each of them a few times before the next product
with a weight. Between two products an array may hold each of its sources at most :data:`MAX_COPIES` times. A constant
without elements does not count: it is the output of experts that no token chose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

__all__ = ["MAX_COPIES", "concatenation_problems"]

MAX_COPIES = 16

# Where counting begins anew: the size of these follows from a weight, a cache or a number of dimensions.
_SOURCES = frozenset(["GatherBlockQuantized", "Gemm", "GroupQueryAttention", "MatMul", "MatMulNBits", "QMoE", "Shape"])
_MAX_SOURCES = 64  # of an array; more are taken together, as one
_Copies: TypeAlias = Counter[str]  # a source -> how often it is in an array


def concatenation_problems(graph: GraphProto) -> Iterator[str]:
    """The arrays of ``graph`` and its branches that hold a source more often, as clauses of one message."""
    fed = {value.name for value in graph.input}
    empty = {tensor.name for tensor in graph.initializer if 0 in tensor.dims} - fed
    yield from _visit(graph, {name: Counter({name: 0}) for name in empty})


def _visit(graph: GraphProto, copies: dict[str, _Copies]) -> Iterator[str]:
    for node in graph.node:
        branches = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        for branch in branches:
            yield from _visit(branch, copies)
        for index, name in enumerate(node.output):
            made_of = [branch.output[index].name for branch in branches if index < len(branch.output)]
            found = _copies(node, name, made_of, copies)
            if (most := max(found.values(), default=1)) > MAX_COPIES:
                expected = f"expected at most {MAX_COPIES}"
                yield f"{node.op_type} {node.name[:80]!r} holds {most:,} copies of an array, {expected}"
                most, found = 1, Counter()  # named once
            copies[name] = found if 0 < len(found) <= _MAX_SOURCES else Counter({name: most})


def _copies(node: NodeProto, name: str, branches: Iterable[str], copies: dict[str, _Copies]) -> _Copies:
    if node.op_type in _SOURCES:
        return Counter({name: 1})
    made_of = branches if node.op_type == "If" else node.input  # a condition is no part of the result
    inputs = [copies.get(value) or Counter({value: 1}) for value in made_of if value]
    if node.op_type == "Concat":
        return sum(inputs, Counter())
    largest: _Copies = Counter()
    for each in inputs:
        largest |= each
    return largest
