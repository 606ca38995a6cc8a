"""``GGUFFile``: a memory-mapped GGUF whose metadata and tensor table were validated.

::

    with GGUFFile.open("student-Q4_0.gguf") as file:
        print(file.metadata["general.architecture"], len(file.tensors))
        weight = file.weight("blk.0.attn_q.weight")  # a view of the mapped file, read when it is used

The parser is in :mod:`sprat.runtime.files.gguf_header`, the checks are in :mod:`sprat.runtime.files.gguf_checks`.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from sprat.arrays import U8Array
from sprat.errors import ModelFileError
from sprat.quant.formats.read_only import any_format
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.files.gguf_checks import TensorInfo, check_layout, check_model, check_types
from sprat.runtime.files.gguf_header import ValueType, read_header
from sprat.runtime.weights import Weight

__all__ = ["GGUFFile", "TensorInfo"]

SPLIT_COUNT = "split.count"


@dataclass(frozen=True, slots=True, eq=False)
class GGUFFile:
    """An open GGUF: metadata, the tensor table, and views of the weights (a ``WeightSource``).

    Attributes:
        path: the file.
        version: GGUF version, 2 or 3.
        metadata: key -> number, str, bool, ``list[str]`` or NumPy array, in file order.
        value_types: key -> ``(type,)``, or ``(ARRAY, element type)``, for writing a copy of the file.
        tensors: name -> :class:`TensorInfo`, in file order.
        alignment: tensor offsets are multiples of this many bytes, counted from the start of the data.
    """

    format: ClassVar[str] = "gguf"

    path: Path
    version: int
    metadata: dict[str, Any]
    value_types: dict[str, tuple[ValueType, ...]]
    tensors: dict[str, TensorInfo]
    alignment: int
    _map: mmap.mmap
    _bytes: U8Array

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Map the file at ``path``, and check its metadata and tensor table; no tensor data is read.

        Raises:
            ModelFileError: the file cannot be opened, is not a GGUF, or is inconsistent.
        """
        path = Path(path)
        data = _mapped(path)
        header = read_header(memoryview(data), str(path))
        check_types(header.metadata, str(path))
        n_parts = header.metadata.get(SPLIT_COUNT, 1)
        if n_parts != 1:
            raise ModelFileError(
                f"{path}: part of a model that is split into {n_parts} files, expected a single file; "
                f"join the parts with `llama-gguf-split --merge {path.name} whole.gguf`"
            )
        tensors = check_layout(header, file_bytes=len(data), path=str(path))
        view = np.frombuffer(data, np.uint8)
        return cls(path, header.version, header.metadata, header.value_types, tensors, header.alignment, data, view)

    def names(self) -> Iterable[str]:
        """Names of all tensors, in file order."""
        return self.tensors.keys()

    def __contains__(self, name: object, /) -> bool:
        return name in self.tensors

    def weight(self, name: str) -> Weight:
        """The tensor called ``name`` as a view of the mapped file; ``packed`` has shape ``(*shape[:-1], row_bytes)``.

        The view keeps the mapping alive, also after :meth:`close`.

        Raises:
            ModelFileError: there is no such tensor.
        """
        try:
            info = self.tensors[name]
        except KeyError:
            raise ModelFileError(f"{self.path}: no tensor {name!r} among its {len(self.tensors)}") from None
        packed = self._bytes[info.offset : info.end].reshape(*info.shape[:-1], -1)
        return Weight(name, any_format(info.format_type), info.shape, packed)

    def check(self, spec: ModelSpec) -> None:
        """Compare tensors and vocabulary with the spec; see :func:`~sprat.runtime.files.gguf_checks.check_model`.

        Raises:
            ModelFileError: missing or unexpected tensors, size mismatches, or a vocabulary of another size.
        """
        check_model(spec, {name: info.shape for name, info in self.tensors.items()}, self.metadata, self.path)

    def ask_for_huge_pages(self) -> None:
        """Advise the kernel to map the file in huge pages, if it supports them; for files that fit into memory."""
        with suppress(AttributeError, OSError):  # not Linux, or a kernel without huge pages
            self._map.madvise(mmap.MADV_HUGEPAGE)

    def close(self) -> None:
        """Do nothing: the file is unmapped with the last view of it. For symmetry with other sources."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _mapped(path: Path) -> mmap.mmap:
    """The whole file, mapped read-only; links are followed, as in a Hugging Face cache."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # checked before opening: a pipe would block
            raise ModelFileError(f"{path}: not a regular file; expected a GGUF file")
        if status.st_size == 0:
            raise ModelFileError(f"{path}: byte 0: found an empty file, expected a GGUF; download or export it again")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be opened ({error.strerror}); check path and permissions") from error
