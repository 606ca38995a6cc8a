"""The artifact formats: what a writer of one offers the export, and the factories by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sprat.export.gguf.artifact import gguf_artifact
from sprat.export.onnx import onnx_artifact
from sprat.export.options import ExportOptions
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.source.tensor import SourceTensor
from sprat.export.write.naming import ModelName
from sprat.export.write.rounding import Rounding
from sprat.export.write.writer import WrittenFile
from sprat.progress import ReportProgress
from sprat.quant.formats import BlockFormat
from sprat.quant.recipe import Recipe
from sprat.runtime.files.bundle import TensorGroup

__all__ = ["ArtifactFactory", "ArtifactWriter", "factories"]


class ArtifactWriter(Protocol):
    """The files of one artifact format, laid out and ready to be written."""

    @property
    def file_name(self) -> str:
        """Name of the main file."""

    @property
    def layout_digest(self) -> str:
        """SHA-256 of everything that decides the files' bytes except the weights."""

    @property
    def requires(self) -> str:
        """Oldest version of the runtime that loads the main file; empty if unknown."""

    @property
    def groups(self) -> tuple[TensorGroup, ...]:
        """Formats and sizes by role."""

    @property
    def file_sizes(self) -> Mapping[str, int]:
        """Name of every file -> bytes; of a graph, which is written last, about."""

    def conversions(self) -> Iterable[tuple[SourceTensor, BlockFormat]]:
        """Every weight to be written, and its format."""

    def check_free_space(self, folder: Path) -> None:
        """Raise ExportError when the bytes still to be written exceed the free space; ``folder`` need not exist."""

    def check_range(self) -> None:
        """Raise FormatError when a weight exceeds the range of its format; reads the source once, unless it was."""

    def write(self, folder: Path, progress: ReportProgress) -> Sequence[WrittenFile]:
        """Write the files, or continue an interrupted write."""


class ArtifactFactory(Protocol):
    """Makes the writer of one artifact format; reads no weights."""

    def __call__(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        *,
        name: ModelName,
        tokenizer: Mapping[str, Any],
        rounding: Rounding | None = None,
    ) -> ArtifactWriter:
        """Lay out the artifact of ``checkpoint``."""


def factories(options: ExportOptions) -> dict[str, ArtifactFactory]:
    """Artifact format -> factory, bound to the options of that format."""
    return {
        "gguf": partial(gguf_artifact, align=options.align, split_bytes=options.split_bytes),
        "onnx": partial(onnx_artifact, options=options.onnx),
    }
