"""Builds an ONNX graph node by node: scoped names for Netron, small constants, inputs and outputs.

::

    graph = GraphBuilder("student")
    with graph.scope("blk.0"):
        y = graph.op("RMSNormalization", x, gain, epsilon=1e-6, axis=-1)     # node blk.0/RMSNormalization

A value is an :class:`onnx_ir.Value`; weights are references to external data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sprat.export.onnx.ort_version import LOWEST, OrtVersion

__all__ = ["CONTRIB", "Dim", "GraphBuilder", "Value"]

CONTRIB = "com.microsoft"
_LOWEST_OPSET = 18  # Split into a number of parts, ScatterND that adds

Value: TypeAlias = ir.Value
Dim: TypeAlias = int | str  # a name for a symbolic size


class GraphBuilder:
    """A graph under construction.

    Args:
        name: name of the graph.

    Attributes:
        opset: the lowest ONNX opset that has the operators so far.
        ort: the oldest onnxruntime that has them.
    """

    def __init__(self, name: str) -> None:
        self.opset, self.ort = _LOWEST_OPSET, LOWEST
        self._name, self._scope = name, ""
        self._float32: dict[str, ir.Node] = {}
        self._nodes: list[ir.Node] = []
        self._inputs: list[Value] = []
        self._outputs: list[Value] = []
        self._initializers: list[Value] = []
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], Value] = {}
        self._names: Counter[str] = Counter()

    def needs(self, *, opset: int = _LOWEST_OPSET, ort: OrtVersion = LOWEST) -> None:
        """Note that an operator is missing before ``opset``, or before version ``ort`` of onnxruntime."""
        self.opset, self.ort = max(self.opset, opset), max(self.ort, ort)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of all nodes added inside with ``name/``."""
        outer = self._scope
        self._scope = f"{outer}{name}/"
        try:
            yield
        finally:
            self._scope = outer

    def op(self, kind: str, *inputs: Value | None, name: str = "", domain: str = "", **attributes: Any) -> Value:
        """Add a node with one output."""
        return self.ops(kind, *inputs, n_outputs=1, name=name, domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *inputs: Value | None, n_outputs: int, name: str = "", domain: str = "", **attributes: Any
    ) -> Sequence[Value]:
        """Add a node with several outputs."""
        node = self._node(kind, inputs, n_outputs, self._scope + (name or kind), domain, attributes)
        self._nodes.append(node)
        return node.outputs

    def as_float32(self, value: Value) -> Value:
        """An initializer as float32: a ``Cast`` before all other nodes, which onnxruntime folds when it loads."""
        assert value.name, "an initializer has a name"
        if value.name not in self._float32:
            attributes = {"to": ir.DataType.FLOAT}
            self._float32[value.name] = self._node("Cast", [value], 1, f"{value.name}.f32", "", attributes)
        return self._float32[value.name].outputs[0]

    def constant(self, array: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> Value:
        """A small constant; equal constants share one initializer."""
        array = np.asarray(array, dtype)
        key = (array.tobytes(), str(array.dtype), array.shape)
        if key not in self._constants:
            text = np.array2string(array, threshold=8, edgeitems=2, separator=",").replace(" ", "").replace("\n", "")
            self._constants[key] = self.initializer(ir.tensor(array, name=self._unique(f"{array.dtype}{text}")))
        return self._constants[key]

    def initializer(self, tensor: ir.TensorProtocol) -> Value:
        """A named tensor: a constant, or a reference to external data.

        It belongs to the main graph also where a branch uses it: onnxruntime does not find the external data of a
        branch in memory, where a browser has them (1.22 to 1.31).
        """
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self._initializers.append(value)
        return value

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[Dim]) -> Value:
        """An input of the graph."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self._inputs.append(value)
        return value

    def optional_input(self, name: str, default: npt.NDArray[Any]) -> Value:
        """An input whose value is ``default`` when it is not fed."""
        value = self.initializer(ir.tensor(default, name=name))
        self._inputs.append(value)
        return value

    def output(self, name: str, value: Value, dtype: ir.DataType, shape: Sequence[Dim]) -> None:
        """Make ``value`` an output of the graph called ``name``."""
        value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(dtype)
        self._outputs.append(value)

    def branch(self, name: str, build: Callable[[], Sequence[Value]]) -> ir.Graph:
        """A branch of ``If``: the nodes that ``build`` adds, and the outputs that it returns."""
        outer, self._nodes = self._nodes, []
        try:
            with self.scope(name):
                results = build()
            return ir.Graph([], results, nodes=self._nodes, name=self._scope + name)
        finally:
            self._nodes = outer

    def finish(self, opsets: dict[str, int]) -> ir.Graph:
        """The finished graph."""
        return ir.Graph(
            self._inputs,
            self._outputs,
            nodes=[*self._float32.values(), *self._nodes],
            initializers=self._initializers,
            opset_imports=opsets,
            name=self._name,
        )

    def _node(
        self,
        kind: str,
        inputs: Sequence[Value | None],
        n_outputs: int,
        name: str,
        domain: str,
        attributes: dict[str, Any],
    ) -> ir.Node:
        name = self._unique(name)
        given = list(inputs)
        while given and given[-1] is None:  # OpenVINO reads an absent input as a node of its own, and refuses it
            given.pop()
        outputs = [ir.Value(name=name if i == 0 else f"{name}:{i}") for i in range(n_outputs)]
        return ir.node(kind, given, attributes, domain=domain, outputs=outputs, name=name)

    def _unique(self, name: str) -> str:
        """``name``, with a numeric suffix if it is taken."""
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}_{self._names[name]}"
