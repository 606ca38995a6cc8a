"""The same ONNX model with every expert computed for every token, as exporters write it that trace a loop.

It uses the same weights file: each expert's matrices are slices of the stacked matrices of ``QMoE``, and the output of
an expert that is not routed to is multiplied by zero. With ``float_experts`` it corresponds to the low-memory form,
whose experts keep activations in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

__all__ = ["write_dense_loop"]

_CONTRIB = "com.microsoft"


def write_dense_loop(sparse: Path, *, float_experts: bool = False) -> Path:
    """Write the model next to ``sparse``, with the same external data; returns its path."""
    model = onnx.load(sparse, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += _Loop(node, tensors, float_experts).nodes if node.op_type == "QMoE" else [node]
    used = {name for node in nodes for name in node.input} | {value.name for value in model.graph.input}
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensor for name, tensor in tensors.items() if name in used)
    path = sparse.with_name("dense-float.onnx" if float_experts else "dense.onnx")
    path.write_bytes(model.SerializeToString())
    return path


class _Loop:
    """The nodes that replace one ``QMoE``; tensors of single experts are added to ``tensors``."""

    def __init__(self, moe: NodeProto, tensors: dict[str, TensorProto], float_experts: bool) -> None:
        self.nodes: list[NodeProto] = []
        self._prefix, self._tensors = moe.name, tensors
        self._attributes = {entry.name: helper.get_attribute_value(entry) for entry in moe.attribute}
        self._accuracy_level = 0 if float_experts else self._attributes.get("accuracy_level", 0)
        x, weights = moe.input[0], self._mask(moe.input[1], moe.input[14])
        width = tensors[moe.input[2]].dims[1] // 2
        outputs = [
            self._weighted(self._expert(x, moe, width, expert), weights, expert)
            for expert in range(tensors[moe.input[2]].dims[0])
        ]
        self.nodes.append(helper.make_node("Sum", outputs, [moe.output[0]]))

    def _mask(self, scores: str, weights: str) -> str:
        """Weights of the routed experts, zero for the others."""
        _, chosen = self._add("TopK", [scores, self._constant([self._attributes["k"]])], n_outputs=2)
        (kept,) = self._add("GatherElements", [weights, chosen], axis=1)
        (zeros,) = self._add("Mul", [weights, self._constant(np.float32(0))])
        return self._add("ScatterElements", [zeros, chosen, kept], axis=1)[0]

    def _expert(self, x: str, moe: NodeProto, width: int, expert: int) -> str:
        """``down(silu(gate(x)) * up(x))``; rows of gate and up are interleaved."""
        bits = self._attributes["expert_weight_bits"]
        (both,) = self._product(x, moe.input[2], moe.input[3], expert, bits)
        (pairs,) = self._add("Reshape", [both, self._constant([0, width, 2])])
        gate, up = (self._add("Gather", [pairs, self._constant(half)], axis=2)[0] for half in (0, 1))
        (sigmoid,) = self._add("Sigmoid", [gate])
        (silu,) = self._add("Mul", [gate, sigmoid])
        (hidden,) = self._add("Mul", [silu, up])
        bits = self._attributes.get("fc2_expert_weight_bits", bits)
        return self._product(hidden, moe.input[5], moe.input[6], expert, bits)[0]

    def _weighted(self, output: str, weights: str, expert: int) -> str:
        (weight,) = self._add("Gather", [weights, self._constant([expert])], axis=1)
        return self._add("Mul", [output, weight])[0]

    def _product(self, x: str, codes: str, scales: str, expert: int, bits: int) -> list[str]:
        _, n_out, row_bytes = self._tensors[codes].dims
        n_in, block_size = 8 * row_bytes // bits, self._attributes["block_size"]
        n_blocks = n_in // block_size
        part = self._part(codes, expert, (n_out, n_blocks, block_size * bits // 8))
        (scales_f32,) = self._add("Cast", [self._part(scales, expert, (n_out, n_blocks))], to=TensorProto.FLOAT)
        return self._add(
            "MatMulNBits",
            [x, part, scales_f32],
            domain=_CONTRIB,
            K=n_in,
            N=n_out,
            bits=bits,
            block_size=block_size,
            accuracy_level=self._accuracy_level,
        )

    def _part(self, stack: str, expert: int, shape: tuple[int, ...]) -> str:
        """One expert's slice of stacked matrices, with ``shape``."""
        whole, name = self._tensors[stack], f"{stack}.{expert}"
        place = {entry.key: entry.value for entry in whole.external_data}
        n_bytes = int(place["length"]) // whole.dims[0]
        part = TensorProto(name=name, data_type=whole.data_type, dims=shape, data_location=TensorProto.EXTERNAL)
        place |= {"offset": str(int(place["offset"]) + expert * n_bytes), "length": str(n_bytes)}
        for key, value in place.items():
            part.external_data.add(key=key, value=value)
        self._tensors[name] = part
        return name

    def _constant(self, value: npt.ArrayLike) -> str:
        array = np.asarray(value)
        name = f"{self._prefix}/constant.{len(self._tensors)}"
        self._tensors[name] = numpy_helper.from_array(array, name)
        return name

    def _add(
        self, kind: str, inputs: list[str], *, n_outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[str]:
        name = f"{self._prefix}/{kind}.{len(self.nodes)}"
        outputs = [f"{name}:{index}" for index in range(n_outputs)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs
