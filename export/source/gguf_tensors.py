"""The tensors of a GGUF, whole or split, as tensors that are read by offset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sprat.export.source.file import FileTensor, SourceFile
from sprat.export.source.tensor import SourceTensor
from sprat.export.source.tensor_map import gguf_map, replaced_in_gguf
from sprat.quant.formats.read_only import any_format
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.files.gguf_spec import spec_of
from sprat.runtime.files.latent_tensors import KV_B

__all__ = ["gguf_tensors", "modern_layout"]


def gguf_tensors(gguf: GGUFFile) -> tuple[tuple[SourceFile, ...], dict[str, FileTensor]]:
    """The files of ``gguf``, and name -> tensor in file order.

    Raises:
        CheckpointError: a file was removed after it was opened.
    """
    files = tuple(SourceFile.find(part.path) for part in gguf.parts)
    tensors = {
        name: FileTensor(name, info.shape, any_format(info.format_type), files[info.part], info.offset)
        for name, info in gguf.tensors.items()
    }
    return files, tensors


def modern_layout(gguf: GGUFFile, stored: Mapping[str, FileTensor]) -> tuple[dict[str, SourceTensor], dict[str, Any]]:
    """The tensors of a copy of ``gguf``, and the keys that it must have beside or instead of those of the file.

    The tensors are those of the file, except that ``attn_kv_b`` of old DeepSeek files is split as llama.cpp's converter
    does since April 2025; the keys then describe MLA.

    Args:
        gguf: an open file of any architecture.
        stored: its tensors.

    Raises:
        ConfigError: there is an ``attn_kv_b``, and the keys do not say how to split it.
    """
    tensors = {name: SourceTensor(name, tensor.shape, tensor) for name, tensor in stored.items()}
    if not any(name.endswith(KV_B) for name in stored):
        return tensors, {}
    spec = spec_of(gguf)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    origins, replaced = gguf_map(spec, shapes), replaced_in_gguf(spec, shapes)
    made: dict[str, SourceTensor] = {}
    for name, tensor in tensors.items():
        if name not in replaced:
            made |= {
                target: SourceTensor(target, origin.shape, origin.build([tensor.rows]))
                for target, origin in origins.items()
                if name in origin.sources
            } or {name: tensor}
    return made, {f"{spec.architecture}.{key}": value for key, value in spec.attention.gguf_keys().items()}
