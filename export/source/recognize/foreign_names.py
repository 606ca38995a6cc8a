"""Whether the weights in a folder are those of its ``config.json``, by the names in their headers."""

from __future__ import annotations

from pathlib import Path

from sprat.export.source.file import SourceFile
from sprat.export.source.fused_experts import split_experts
from sprat.export.source.recognize.plain_names import check_known_names, plain_names
from sprat.export.source.shards import read_shards
from sprat.export.source.tensor_map import tensor_map
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["refuse_foreign_names"]


def refuse_foreign_names(folder: Path, spec: ModelSpec) -> None:
    """Check that the shards in ``folder`` have a tensor of ``spec``; a folder without or with some shards passes.

    Raises:
        CheckpointError: no tensor has an expected name; the message shows the first names of both kinds.
    """
    expected = dict.fromkeys(source for origin in tensor_map(spec).values() for source in origin.sources)
    found: set[str] = set()
    for path in sorted(folder.glob("[!.]*.safetensors")):
        stored = plain_names(read_shards({SourceFile.find(path): frozenset()}), folder)
        found.update(split_experts(stored))
        if not found.isdisjoint(expected):
            return
    if found:
        check_known_names(found, expected, folder, spec.architecture)
