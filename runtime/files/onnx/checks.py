"""Security checks of an ONNX model: when sprat writes one, and before onnxruntime opens one.

A model is untrusted, and onnxruntime opens any file that its tensors name. So the checks require:

- operators of onnx and onnxruntime (``com.microsoft``) only: none that need a custom library, and none that name a file
  (``EPContext``);
- external data inside the model's folder: no absolute path, no ``..``, no symbolic link that leaves it, no hard link to
  a file outside; each tensor inside its data file, with the length that its shape implies.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sprat.errors import ModelFileError
from sprat.runtime.files.shape_checks import summarize

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

__all__ = [
    "ALLOWED_DOMAINS",
    "all_graphs",
    "check_onnx",
    "external_fields",
    "nested_graphs",
    "tensor_nbytes",
    "tensors_of",
    "text",
    "type_name",
]

ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
_FORBIDDEN_OPERATORS = frozenset({"EPContext", "PythonOp", "PythonOpGrad"})  # they open files or run programs
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
_MAX_GRAPH_BYTES = 1 << 31  # protobuf's own limit
_MAX_DEPTH = 16  # of nested graphs
_MAX_LISTED = 8  # problems in one message
_SMALL_BITS = {
    "UNDEFINED": 0,
    "STRING": 0,
    "INT4": 4,
    "UINT4": 4,
    "FLOAT4E2M1": 4,
    "INT2": 2,
    "UINT2": 2,
    "FLOAT6E2M3": 6,
    "FLOAT6E3M2": 6,
}


def check_onnx(path: str | os.PathLike[str]) -> ModelProto:
    """Read the graph at ``path`` without its external data, and check what the module docstring lists.

    Returns:
        The model; tensors with external data hold only its location.

    Raises:
        ModelFileError: the file cannot be read, is not an ONNX model, or fails a check; the message lists the problems.
    """
    path = Path(path)
    model = _parse(path)
    problems = [*_operator_problems(model), *_external_problems(model, path.parent)]
    if problems:
        raise ModelFileError(f"{path}: {summarize(problems, _MAX_LISTED)}; download or export it again")
    return model


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """All tensors of a model, including those in attributes, nested graphs and functions."""
    for graph in all_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def nested_graphs(model: ModelProto) -> Iterator[GraphProto]:
    """The graphs inside of nodes of the main graph: branches, at any depth."""
    yield from _graphs_in(_subgraphs(model.graph.node), 1)


def external_fields(tensor: TensorProto) -> dict[str, str]:
    """``location``, ``offset`` and ``length`` of a tensor's external data; empty if the data is in the model."""
    from onnx import TensorProto

    is_external = tensor.data_location == TensorProto.EXTERNAL
    return {text(entry.key): text(entry.value) for entry in tensor.external_data} if is_external else {}


def text(value: str | bytes) -> str:
    """A string of a model; protobuf returns bytes for one that is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def tensor_nbytes(tensor: TensorProto) -> int:
    """Size in bytes of a tensor's shape and type; types below a byte are packed, strings count 0."""
    from onnx.helper import tensor_dtype_to_np_dtype

    name = type_name(tensor)
    itemsize = 0 if name in _SMALL_BITS else int(tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    n_bits = int(math.prod(tensor.dims)) * _SMALL_BITS.get(name, 8 * itemsize)
    return (n_bits + 7) // 8


def type_name(tensor: TensorProto) -> str:
    """``FLOAT``, ``UINT8``, ...; ``UNDEFINED`` for an unknown data type."""
    from onnx import TensorProto

    names: dict[int, str] = {value: name for name, value in TensorProto.DataType.items()}
    return names.get(tensor.data_type, "UNDEFINED")


def _parse(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # a dependency of onnx

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # checked before opening: a pipe would block
            raise ModelFileError(f"{path}: not a regular file; expected an ONNX model")
        if status.st_size > _MAX_GRAPH_BYTES:
            raise ModelFileError(
                f"{path}: {status.st_size:,} bytes, expected at most 2 GiB; store the weights as external data"
            )
        model: ModelProto = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be opened ({error.strerror}); check path and permissions") from error
    except DecodeError as error:
        raise ModelFileError(f"{path}: not an ONNX model, or damaged ({error}); download or export it again") from error
    if not (model.graph.node and model.graph.output and model.opset_import):
        raise ModelFileError(f"{path}: no graph or no opsets: a truncated ONNX model; download or export it again")
    return model


def _operator_problems(model: ModelProto) -> Iterator[str]:
    named = [*model.opset_import, *model.functions, *(nodes := list(_nodes(model)))]
    for domain in sorted({text(entry.domain) for entry in named} - ALLOWED_DOMAINS):
        yield f"operators of the domain {domain!r}, which need a custom library"
    for operator in sorted({text(node.op_type) for node in nodes} & _FORBIDDEN_OPERATORS):
        yield f"the operator {operator}, which opens other files"


def _external_problems(model: ModelProto, folder: Path) -> Iterator[str]:
    n_bytes: dict[str, int] = {}  # location -> file size, so that each file is checked once
    bad: set[str] = set()
    for tensor in tensors_of(model):
        fields = external_fields(tensor)
        if not fields and tensor.data_location == 0:
            continue
        location = fields.get("location", "")
        if location not in n_bytes and location not in bad:
            if problem := _file_problem(folder, location):
                bad.add(location)
                yield problem
                continue
            n_bytes[location] = (folder / location).stat().st_size
        if location in n_bytes and (problem := _extent_problem(tensor, fields, n_bytes[location])):
            yield f"tensor {tensor.name!r} {problem}"


def _file_problem(folder: Path, location: str) -> str:
    """Why ``location`` must not be opened as a file of ``folder``; empty if it may."""
    parts = PurePosixPath(location).parts
    if (
        not parts
        or parts[0] == "/"
        or ".." in parts
        or "\\" in location
        or ":" in location
        or not location.isprintable()
    ):
        return f"external data in {location[:100]!r}, expected a plain path inside the model's folder"
    path = folder / location
    try:
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            return f"external data in {location!r}, a link that leaves the folder"
        if not path.is_file():
            return f"external data in {location!r}, which is missing"
        if path.stat().st_nlink > _links_inside(folder, path):
            return f"external data in {location!r}, which is a hard link to a file outside of the folder"
    except OSError as error:  # a name of over 255 bytes, say
        return f"external data in {location[:100]!r}, which cannot be read ({error.strerror})"
    return ""


def _links_inside(folder: Path, path: Path) -> int:
    """Number of hard links to the file at ``path`` inside the folder."""
    if path.stat().st_nlink == 1:
        return 1
    return sum(other.samefile(path) for other in folder.rglob("*") if other.is_file() and not other.is_symlink())


def _extent_problem(tensor: TensorProto, fields: dict[str, str], file_bytes: int) -> str:
    """Why the tensor's external data is invalid; empty if it is valid."""
    if unknown := fields.keys() - _EXTERNAL_KEYS:
        return f"has external data with the unknown keys {sorted(unknown)}"
    offset, length = fields.get("offset", "0"), fields.get("length", "")
    if not (offset.isdecimal() and (length.isdecimal() or not length)):
        return f"has offset {offset!r} and length {length!r}, expected numbers"
    if any(size < 0 for size in tensor.dims) or type_name(tensor) in {"UNDEFINED", "STRING"}:
        return f"has shape {tuple(tensor.dims)} and type {type_name(tensor)}, which external data cannot have"
    expected = tensor_nbytes(tensor)
    if int(length or expected) != expected:
        return f"has {int(length):,} bytes, expected {expected:,} for its shape {tuple(tensor.dims)}"
    end = int(offset) + expected
    return f"ends at byte {end:,} of a file of {file_bytes:,}" if end > file_bytes else ""


def all_graphs(model: ModelProto) -> Iterator[GraphProto]:
    """The main graph and all graphs inside of nodes and functions."""
    yield from _graphs_in([model.graph], 0)
    for function in model.functions:
        yield from _graphs_in(_subgraphs(function.node), 1)
    for training in model.training_info:
        yield from _graphs_in([training.initialization, training.algorithm], 0)


def _graphs_in(graphs: Iterable[GraphProto], depth: int) -> Iterator[GraphProto]:
    for graph in graphs:
        if depth > _MAX_DEPTH:
            raise ModelFileError(
                f"an ONNX model with graphs nested more than {_MAX_DEPTH} deep, which no language model needs"
            )
        yield graph
        yield from _graphs_in(_subgraphs(graph.node), depth + 1)


def _subgraphs(nodes: Any) -> Iterator[GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in all_graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node
