"""``ONNXFile``: an ONNX model that sprat wrote (docs/onnx.md), checked before onnxruntime opens it."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import msgspec

from sprat.errors import ModelFileError
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.spec_json import spec_from_json
from sprat.runtime.files.onnx.checks import all_graphs, check_onnx, external_fields, tensor_nbytes, text, type_name
from sprat.runtime.files.onnx.operators import operator_problems
from sprat.runtime.files.shape_checks import summarize

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto, ValueInfoProto

NEWER_NAME = "model.ort-1.31.onnx"  # the graph beside model.onnx with operators of newer versions (docs/onnx.md)
_MAX_LISTED = 8  # problems in one message

__all__ = ["NEWER_NAME", "CachePort", "CacheUpdate", "Initializer", "ONNXFile"]


class CacheUpdate(enum.StrEnum):
    """Method by which the graph adds the KV entries of new tokens to the cache (docs/onnx.md)."""

    APPEND = "append"  # latents: the graph reads past entries and returns the new ones
    SHARED = "shared"  # keys and values: past and present are the same buffers; the graph writes new entries into them
    CONCAT = "concat"  # keys and values: the graph returns a copy of past entries with the new ones


class CachePort(msgspec.Struct, frozen=True):
    """The graph input and output for the KV entries of one layer."""

    layer: int
    plane: int  # 0 for latents and keys, 1 for values
    past: str
    present: str


class Initializer(msgspec.Struct, frozen=True):
    """A weight, or a part of one (codes, scales), as the model stores it."""

    type_name: str  # "UINT8"
    shape: tuple[int, ...]
    nbytes: int
    location: str  # the data file in the model's folder; "" if the data is in the model itself
    offset: int  # in the data file


class ONNXFile(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A checked ONNX model.

    Attributes:
        path: ``model.onnx``; its data file is in the same folder.
        spec: the architecture.
        cache: how the graph updates its cache.
        metadata: the keys ``sprat.*``.
        tensors: name -> :class:`Initializer`, in file order.
        inputs: names of the graph inputs.
    """

    format: ClassVar[str] = "onnx"

    path: Path
    spec: ModelSpec
    cache: CacheUpdate
    metadata: Mapping[str, str]
    tensors: Mapping[str, Initializer]
    inputs: frozenset[str]

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, trust: bool = False) -> Self:
        """Read and check the graph at ``path``; no weights are read.

        Args:
            path: the graph.
            trust: take operators and constants that sprat's exporter does not write, see
                :mod:`~sprat.runtime.files.onnx.operators`.

        Raises:
            ModelFileError: see :func:`~sprat.runtime.files.onnx.checks.check_onnx`; or the graph is not one of sprat's.
            ConfigError: the architecture in its metadata is invalid.
        """
        path = Path(path)
        model = check_onnx(path)
        if not trust and (problems := list(operator_problems(model))):
            raise ModelFileError(
                f"{path}: {summarize(problems, _MAX_LISTED)}; a graph is a program, "
                "and this is none of sprat's; export the model again, or load it with trust=True (--trust) "
                "if you know its author"
            )
        metadata = {text(entry.key): text(entry.value) for entry in model.metadata_props}
        _check_written_by_sprat(metadata, path)
        file = cls(
            path=path,
            spec=spec_from_json(metadata["sprat.spec"], str(path)),
            cache=CacheUpdate(metadata["sprat.cache"]),
            metadata=metadata,
            tensors={text(each.name): _stored(each) for graph in all_graphs(model) for each in graph.initializer},
            inputs=frozenset(text(value.name) for value in model.graph.input),
        )
        file._check_ports(model)
        return file

    @property
    def name(self) -> str:
        """The model's name, or the name of its folder."""
        return self.metadata.get("sprat.name") or Path(os.path.realpath(self.path)).parent.name

    def files(self) -> list[Path]:
        """The graph's file, the graph beside it for newer versions of onnxruntime, and their data files."""
        newer = self.path.with_name(NEWER_NAME)
        graphs = [self.path, newer] if newer != self.path and newer.is_file() else [self.path]
        locations = sorted({tensor.location for tensor in self.tensors.values()} - {""})
        return [*graphs, *(self.path.parent / location for location in locations)]

    @property
    def ports(self) -> Iterator[CachePort]:
        """The inputs and outputs of the cache, layer by layer."""
        for layer in range(self.spec.n_layers):
            if self.cache is CacheUpdate.APPEND:
                yield CachePort(layer, 0, f"past_latent.{layer}", f"new_latent.{layer}")
            else:
                for plane, part in enumerate(("key", "value")):
                    yield CachePort(layer, plane, f"past_key_values.{layer}.{part}", f"present.{layer}.{part}")

    def _check_ports(self, model: ModelProto) -> None:
        """Check that the graph has every input and output of the cache, with the widths of the spec.

        Raises:
            ModelFileError: an input or output is missing or has another width; all of them are named.
        """
        planes = self.spec.attention.planes
        if (self.cache is CacheUpdate.APPEND) != (len(planes) == 1):
            raise ModelFileError(
                f"{self.path}: sprat.cache is {self.cache}, but the model is {self.spec.architecture}; export it again"
            )
        found = {text(value.name): _last_size(value) for value in (*model.graph.input, *model.graph.output)}
        expected = {"input_ids": None, "logits": self.spec.vocab_size}
        expected |= {name: planes[port.plane].width for port in self.ports for name in (port.past, port.present)}
        problems = [
            f"{name} is {found.get(name, 'missing')}, expected {size}"
            for name, size in expected.items()
            if name not in found or (size is not None and found[name] != size)
        ]
        if problems:
            raise ModelFileError(
                f"{self.path}: the graph does not match the architecture: {summarize(problems, 8)}; export it again"
            )


def _check_written_by_sprat(metadata: Mapping[str, str], path: Path) -> None:
    missing = [key for key in ("sprat.spec", "sprat.cache") if key not in metadata]
    if missing:
        raise ModelFileError(
            f"{path}: no {' and '.join(missing)} in the metadata, expected an ONNX model written by "
            "`sprat export --format onnx`"
        )
    if metadata["sprat.cache"] not in set(map(str, CacheUpdate)):
        raise ModelFileError(
            f"{path}: sprat.cache is {metadata['sprat.cache'][:40]!r}, expected {', '.join(CacheUpdate)}; "
            "use the version of sprat that wrote it"
        )


def _stored(tensor: TensorProto) -> Initializer:
    fields = external_fields(tensor)
    return Initializer(
        type_name=type_name(tensor),
        shape=tuple(tensor.dims),
        nbytes=tensor_nbytes(tensor),
        location=fields.get("location", ""),
        offset=int(fields.get("offset", "0")),
    )


def _last_size(value: ValueInfoProto) -> int | str:
    """The last dimension of a graph input or output: its size, or its name if symbolic."""
    dims = value.type.tensor_type.shape.dim
    if not dims:
        return "of unknown shape"
    return str(dims[-1].dim_param) or int(dims[-1].dim_value)
