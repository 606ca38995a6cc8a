"""The ONNX files of a checkpoint: graph, weights streamed through the quantizer, and genai_config.json."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from sprat.arrays import U8Array
from sprat.export.onnx.arrays import DATA_NAME
from sprat.export.onnx.data import OnnxWeight
from sprat.export.onnx.genai_config import genai_config
from sprat.export.onnx.model import BuiltModel, build_model
from sprat.export.onnx.options import OnnxOptions
from sprat.export.onnx.ort_version import FAST_QMOE
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.tensor import SourceTensor
from sprat.export.write.errors import export_errors
from sprat.export.write.naming import ModelName
from sprat.export.write.plain_files import open_folder, write_new
from sprat.export.write.rounded_rows import rounded_tensors
from sprat.export.write.rounding import Rounding
from sprat.export.write.tensor_groups import TensorSize, group_tensors
from sprat.export.write.writer import WrittenFile, check_free_space, write_file
from sprat.progress import ReportProgress
from sprat.quant.formats import BlockFormat
from sprat.quant.recipe import Recipe
from sprat.runtime.arch.spec_json import spec_to_json
from sprat.runtime.backends.onnx.newer_graph import OF_KEY
from sprat.runtime.files.bundle import TensorGroup
from sprat.runtime.files.onnx.checks import check_onnx
from sprat.runtime.files.onnx.file import NEWER_NAME

__all__ = ["OnnxArtifact"]

_MODEL_NAME, _GENAI_NAME = "model.onnx", "genai_config.json"


@dataclass(frozen=True, slots=True, eq=False)
class OnnxArtifact:
    """An ONNX model: its graph, and the complete layout of its weights, to be written."""

    built: BuiltModel
    newer: BuiltModel | None  # an MoE model's graph for newer versions of onnxruntime, over the same data
    checkpoint: Checkpoint
    metadata: Mapping[str, str]  # of the graph, without the source's hash, which needs a pass over the source
    genai: bytes | None  # genai_config.json, if onnxruntime-genai can run the model

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        recipe: Recipe,
        *,
        name: ModelName,
        tokenizer: Mapping[str, Any],
        rounding: Rounding | None,
        options: OnnxOptions,
    ) -> Self:
        """Build the graph; see :func:`sprat.export.onnx.onnx_artifact`."""
        spec = checkpoint.spec
        tensors = rounded_tensors(checkpoint.tensors, recipe, rounding)
        built = build_model(spec, tensors, recipe, options, name=name.name)
        metadata = {
            "sprat.version": version("sprat"),
            "sprat.name": name.name,
            "sprat.spec": spec_to_json(spec),
            "sprat.recipe": " ".join([recipe.name, *map(str, recipe.rules)]),
            "sprat.cache": built.cache,
            "sprat.operators": "portable" if options.portable else "contrib",
            "sprat.requires": built.requires,
        }
        if rounding:
            metadata["sprat.rounding"] = rounding.digest
        genai = genai_config(spec, tokenizer, _MODEL_NAME, options.context)
        newer = None
        if spec.moe and options.ort < FAST_QMOE:
            newer = build_model(spec, tensors, recipe, replace(options, ort=FAST_QMOE), name=name.name)
            if newer.requires == built.requires or newer.data.digest() != built.data.digest():
                newer = None
        return cls(built, newer, checkpoint, metadata, genai)

    @property
    def file_name(self) -> str:
        """Name of the graph's file."""
        return _MODEL_NAME

    @property
    def layout_digest(self) -> str:
        """SHA-256 of everything that decides the files' bytes except the weights."""
        return hashlib.sha256(b"".join(self._texts(self.metadata).values())).hexdigest()

    @property
    def requires(self) -> str:
        """The oldest onnxruntime that loads the graph; of a portable graph its opset too."""
        return self.built.requires

    @property
    def groups(self) -> tuple[TensorGroup, ...]:
        """Weights by role and format."""
        weights = (placed.tensor for placed in self.built.data.tensors)
        return group_tensors(
            TensorSize(
                weight.name,
                weight.format.name,
                math.prod(weight.source.shape),
                sum(region.nbytes for region in weight.regions),
            )
            for weight in weights
        )

    def check_free_space(self, folder: Path) -> None:
        """Check that the weights fit on the disk; see :func:`~sprat.export.write.writer.check_free_space`."""
        check_free_space({folder / DATA_NAME: self.built.data})

    def check_range(self) -> None:
        """Check that no weight exceeds the range of its format."""
        self.checkpoint.check_range(self.conversions())

    @property
    def file_sizes(self) -> dict[str, int]:
        """Bytes of the weights, of the graphs and of genai_config.json."""
        return {DATA_NAME: self.built.data.nbytes} | {
            name: len(text) for name, text in self._texts(self.metadata).items()
        }

    def conversions(self) -> Iterator[tuple[SourceTensor, BlockFormat]]:
        """Every weight, and the format that it is written in."""
        weights = (placed.tensor for placed in self.built.data.tensors)
        return ((weight.source, weight.format) for weight in weights)

    def write(self, folder: Path, progress: ReportProgress) -> tuple[WrittenFile, ...]:
        """Write the files, or continue an interrupted write; see :func:`~sprat.export.write.writer.write_file`."""
        data = write_file(
            folder / DATA_NAME,
            self.built.data,
            self._pack,
            source=" ".join([self.checkpoint.content_hash(), self.metadata.get("sprat.rounding", "")]).rstrip(),
            check_source=self.checkpoint.check_unchanged,
            progress=progress,
            keep_journal=True,
        )
        texts = self._texts({**self.metadata, "sprat.source": self.checkpoint.hash()})
        data = replace(data, pieces=())  # the graph names its weights, not the data file
        written = (data, *(_write_whole(folder / name, text) for name, text in texts.items()))
        for name in texts.keys() - {_GENAI_NAME}:
            check_onnx(folder / name)  # a written graph must pass the checks of loading
        return written

    def _pack(self, weight: OnnxWeight) -> Iterator[U8Array]:
        return weight.chunks()

    def _texts(self, metadata: Mapping[str, str]) -> dict[str, bytes]:
        """Name -> content of the files besides the weights."""
        texts = {_MODEL_NAME: _graph(self.built, metadata)}
        if self.newer is not None:
            of = hashlib.sha256(texts[_MODEL_NAME]).hexdigest()
            texts[NEWER_NAME] = _graph(self.newer, {**metadata, "sprat.requires": self.newer.requires, OF_KEY: of})
        return texts if self.genai is None else {**texts, _GENAI_NAME: self.genai}


def _graph(built: BuiltModel, metadata: Mapping[str, str]) -> bytes:
    import onnx_ir as ir

    proto = ir.to_proto(built.model)
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    return bytes(proto.SerializeToString(deterministic=True))


def _write_whole(path: Path, data: bytes) -> WrittenFile:
    with export_errors(path):
        folder = open_folder(path.parent)
        try:
            write_new(folder, path.name, data)
        finally:
            os.close(folder)
    return WrittenFile(path, len(data), hashlib.sha256(data).hexdigest())
