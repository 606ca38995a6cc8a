"""The ONNX files of a checkpoint: the graph, its weights streamed through the quantizer, onnxruntime-genai's config."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from sprat.arrays import U8Array
from sprat.export.onnx.arrays import DATA_NAME
from sprat.export.onnx.data import StoredWeight
from sprat.export.onnx.genai_config import genai_config
from sprat.export.onnx.model import BuiltModel, build_model
from sprat.export.onnx.options import OnnxOptions
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.write.naming import ModelName
from sprat.export.write.writer import WrittenFile, check_room, write_file
from sprat.progress import ReportProgress
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.spec_json import spec_to_json
from sprat.runtime.arch.tensors import tensor_role
from sprat.runtime.files.bundle import TensorGroup
from sprat.runtime.files.onnx_checks import check_onnx

__all__ = ["OnnxArtifact"]

_MODEL_NAME, _GENAI_NAME = "model.onnx", "genai_config.json"


@dataclass(frozen=True, slots=True, eq=False)
class OnnxArtifact:
    """An ONNX model that is planned to the last byte of its weights."""

    built: BuiltModel
    checkpoint: Checkpoint
    metadata: Mapping[str, str]  # of the graph, but for the source's hash, which costs a pass over it
    genai: bytes | None  # genai_config.json, where onnxruntime-genai can run the model

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        recipe: Recipe,
        *,
        name: ModelName,
        tokenizer: Mapping[str, Any],
        options: OnnxOptions,
    ) -> Self:
        """Build the graph; see :func:`sprat.export.onnx.plan_onnx`."""
        spec = checkpoint.spec
        built = build_model(spec, checkpoint.tensors, recipe, options, name=name.name)
        metadata = {
            "sprat.version": version("sprat"),
            "sprat.name": name.name,
            "sprat.spec": spec_to_json(spec),
            "sprat.recipe": " ".join([recipe.name, *map(str, recipe.rules)]),
            "sprat.cache": built.cache,
            "sprat.operators": "portable" if options.portable else "contrib",
        }
        return cls(built, checkpoint, metadata, genai_config(spec, tokenizer, _MODEL_NAME))

    @property
    def file_name(self) -> str:
        """The graph."""
        return _MODEL_NAME

    @property
    def plan(self) -> str:
        """Digest of everything that decides the files but the weights."""
        return hashlib.sha256(self._graph(self.metadata) + (self.genai or b"")).hexdigest()

    @property
    def groups(self) -> tuple[TensorGroup, ...]:
        """Weights by role and format."""
        groups: dict[tuple[str, str], list[StoredWeight]] = {}
        for placed in self.built.data.tensors:
            groups.setdefault((tensor_role(placed.tensor.name), placed.tensor.format.name), []).append(placed.tensor)
        return tuple(
            TensorGroup(
                role=role,
                format=format,
                wanted=format,
                n_tensors=len(weights),
                n_weights=sum(math.prod(weight.source.shape) for weight in weights),
                size_bytes=sum(region.nbytes for weight in weights for region in weight.regions),
            )
            for (role, format), weights in groups.items()
        )

    def check_room(self, folder: Path) -> None:
        """Make sure that the weights fit on the disk; see :func:`~sprat.export.write.writer.check_room`."""
        check_room(folder / DATA_NAME, self.built.data)

    def write(self, folder: Path, progress: ReportProgress) -> tuple[WrittenFile, ...]:
        """Write the files, or finish writing them; see :func:`~sprat.export.write.writer.write_file`."""
        data = write_file(
            folder / DATA_NAME,
            self.built.data,
            self._pack,
            source=self.checkpoint.hash(),
            check_source=self.checkpoint.check_unchanged,
            progress=progress,
            keep_journal=True,
        )
        texts = {_MODEL_NAME: self._graph({**self.metadata, "sprat.source": self.checkpoint.hash()})}
        if self.genai is not None:
            texts[_GENAI_NAME] = self.genai
        written = (data, *(_write_whole(folder / name, text) for name, text in texts.items()))
        check_onnx(folder / _MODEL_NAME)  # what we write must be what we would load
        return written

    def _pack(self, weight: StoredWeight) -> Iterator[U8Array]:
        return weight.chunks()

    def _graph(self, metadata: Mapping[str, str]) -> bytes:
        import onnx_ir as ir

        proto = ir.to_proto(self.built.model)
        for key, value in metadata.items():
            proto.metadata_props.add(key=key, value=value)
        return bytes(proto.SerializeToString(deterministic=True))


def _write_whole(path: Path, data: bytes) -> WrittenFile:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return WrittenFile(path, len(data), hashlib.sha256(data).hexdigest())
