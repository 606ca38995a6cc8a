"""``ONNXFile``: an ONNX model of sprat's (docs/onnx.md), checked before onnxruntime sees it; no weight is read."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from sprat.errors import ModelFileError
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.spec_json import spec_from_json
from sprat.runtime.files.onnx_checks import check_onnx, external_fields, tensor_nbytes, type_name

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto, ValueInfoProto

__all__ = ["CacheForm", "CachePort", "ONNXFile", "StoredTensor"]


class CacheForm(enum.StrEnum):
    """Who writes the rows of new tokens, and where (docs/onnx.md)."""

    APPEND = "append"  # latents: the graph reads the rows so far and returns the new ones
    SHARED = "shared"  # keys and values: the graph writes new rows into the buffers that it reads
    CONCAT = "concat"  # keys and values: the graph returns a longer copy


@dataclass(frozen=True, slots=True)
class CachePort:
    """The input and the output through which one layer's rows go."""

    layer: int
    plane: int  # 0 for latents and keys, 1 for values
    past: str
    present: str


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A weight, or a part of one, as the model stores it."""

    type_name: str  # "UINT8"
    shape: tuple[int, ...]
    nbytes: int
    location: str  # the file beside the model that holds it; "" for the model itself
    offset: int  # in that file


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ONNXFile:
    """A checked ONNX model.

    Attributes:
        path: ``model.onnx``; its weights lie beside it.
        spec: the architecture.
        cache: the form of its caches.
        metadata: what the writer recorded, ``sprat.*``.
        tensors: name -> :class:`StoredTensor`, in the model's order.
        inputs: names of the graph's inputs.
    """

    format: ClassVar[str] = "onnx"

    path: Path
    spec: ModelSpec
    cache: CacheForm
    metadata: Mapping[str, str]
    tensors: Mapping[str, StoredTensor]
    inputs: frozenset[str]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read and check the graph at ``path``.

        Raises:
            ModelFileError: see :func:`~sprat.runtime.files.onnx_checks.check_onnx`; or a graph that sprat cannot drive.
            ConfigError: the architecture that it records cannot be read.
        """
        path = Path(path)
        model = check_onnx(path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        _check_written_by_sprat(metadata, path)
        file = cls(
            path=path,
            spec=spec_from_json(metadata["sprat.spec"], str(path)),
            cache=CacheForm(metadata["sprat.cache"]),
            metadata=metadata,
            tensors={tensor.name: _stored(tensor) for tensor in model.graph.initializer},
            inputs=frozenset(value.name for value in model.graph.input),
        )
        file._check_ports(model)
        return file

    @property
    def name(self) -> str:
        """The model's name; its folder's where none was recorded."""
        return self.metadata.get("sprat.name") or self.path.resolve().parent.name

    @property
    def ports(self) -> Iterator[CachePort]:
        """The ways in and out of the cache, layer by layer."""
        for layer in range(self.spec.n_layers):
            if self.cache is CacheForm.APPEND:
                yield CachePort(layer, 0, f"past_latent.{layer}", f"new_latent.{layer}")
            else:
                for plane, part in enumerate(("key", "value")):
                    yield CachePort(layer, plane, f"past_key_values.{layer}.{part}", f"present.{layer}.{part}")

    def _check_ports(self, model: ModelProto) -> None:
        """Every input and output that the cache's form asks for is there, as wide as the spec says.

        Raises:
            ModelFileError: all that are not.
        """
        latent = self.cache is CacheForm.APPEND
        if latent != (self.spec.mla is not None):
            raise ModelFileError(
                f"{self.path}: a cache of the form {self.cache} for {self.spec.architecture}; export it again"
            )
        width = self.spec.mla.latent_dim if self.spec.mla else self.spec.head_dim
        found = {value.name: _last_size(value) for value in (*model.graph.input, *model.graph.output)}
        wanted = {"input_ids": None, "logits": self.spec.vocab_size}
        wanted |= {name: width for port in self.ports for name in (port.past, port.present)}
        wrong = [
            f"{name} is {found.get(name, 'missing')}, expected {size}"
            for name, size in wanted.items()
            if name not in found or (size is not None and found[name] != size)
        ]
        if wrong:
            raise ModelFileError(
                f"{self.path}: its graph does not fit its architecture: {'; '.join(wrong[:8])}; export it again"
            )


def _check_written_by_sprat(metadata: Mapping[str, str], path: Path) -> None:
    missing = [key for key in ("sprat.spec", "sprat.cache") if key not in metadata]
    if missing:
        raise ModelFileError(
            f"{path}: an ONNX model without {' and '.join(missing)} in its metadata; sprat runs those that "
            "`sprat export --format onnx` wrote"
        )
    if metadata["sprat.cache"] not in set(map(str, CacheForm)):
        raise ModelFileError(
            f"{path}: sprat.cache is {metadata['sprat.cache'][:40]!r}, expected {', '.join(CacheForm)}; "
            "use the sprat that wrote it"
        )


def _stored(tensor: TensorProto) -> StoredTensor:
    fields = external_fields(tensor)
    return StoredTensor(
        type_name=type_name(tensor),
        shape=tuple(tensor.dims),
        nbytes=tensor_nbytes(tensor),
        location=fields.get("location", ""),
        offset=int(fields.get("offset", "0")),
    )


def _last_size(value: ValueInfoProto) -> int | str:
    """The last size of a graph's input or output: a number, or the name of a symbolic one."""
    sizes = value.type.tensor_type.shape.dim
    if not sizes:
        return "of unknown shape"
    return str(sizes[-1].dim_param) or int(sizes[-1].dim_value)
