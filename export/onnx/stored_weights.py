"""The weights of an ONNX model for an inspection: canonical name, format and size, from the graph alone.

A quantized weight is two or three initializers (docs/onnx.md): codes, scales and, if asymmetric, zero points. Experts
may be separate initializers, and tied embeddings are two initializers over the same bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from sprat.export.write.tensor_groups import TensorSize
from sprat.quant.formats.groups import GROUP_SIZES, group_format
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.files.onnx.file import Initializer, ONNXFile

__all__ = ["stored_weights"]

_CANONICAL = re.compile(r"(?P<name>.+\.(?:weight|bias))(?:\.(?P<part>[a-z]+))?(?:\.\d+)?")
_FLOATS = {"FLOAT": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16"}


def stored_weights(file: ONNXFile) -> Iterator[TensorSize]:
    """Name, format, number of weights and size of each weight; constants of the graph are not included."""
    sizes = _n_weights(file.spec)
    parts: dict[str, dict[tuple[str, int], tuple[str, Initializer]]] = {}
    for name, tensor in file.tensors.items():
        if (found := _CANONICAL.fullmatch(name)) and found["name"] in sizes:
            place = (tensor.location, tensor.offset)
            parts.setdefault(found["name"], {})[place] = (found["part"] or "", tensor)
    for name, found_parts in parts.items():
        nbytes = sum(tensor.nbytes for _, tensor in found_parts.values())
        yield TensorSize(name, _format(found_parts.values(), sizes[name]), sizes[name], nbytes)


def _n_weights(spec: ModelSpec) -> dict[str, int]:
    """Canonical name -> number of weights, including the fused gate and up of routed experts."""
    sizes = {name: math.prod(shape) for name, shape in expected_tensors(spec).items()}
    fused = {
        name.replace("ffn_gate_exps", "ffn_gate_up_exps"): 2 * n for name, n in sizes.items() if "ffn_gate_exps" in name
    }
    return sizes | fused


def _format(parts: Iterable[tuple[str, Initializer]], n_weights: int) -> str:
    by_kind: dict[str, list[Initializer]] = {}
    for kind, tensor in parts:
        by_kind.setdefault(kind, []).append(tensor)
    if "scales" not in by_kind:
        return _FLOATS.get(next(iter(by_kind.values()))[0].type_name, "unknown")
    n_scales = sum(math.prod(tensor.shape) for tensor in by_kind["scales"])
    n_code_bytes = sum(t.nbytes for kind, ts in by_kind.items() for t in ts if kind not in {"scales", "zeros"})
    bits, block_size = round(8 * n_code_bytes / n_weights), n_weights // n_scales
    if bits not in {4, 8} or block_size not in GROUP_SIZES:
        return f"INT{bits} in blocks of {block_size}"
    return group_format(bits, block_size, symmetric="zeros" not in by_kind).name
