"""The tensors of a GGUF, whole or split, as tensors that are read by offset."""

from __future__ import annotations

from sprat.export.source.file import FileTensor, SourceFile
from sprat.quant.formats.read_only import any_format
from sprat.runtime.files.gguf import GGUFFile

__all__ = ["gguf_tensors"]


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
