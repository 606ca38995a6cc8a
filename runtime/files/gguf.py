"""``GGUFFile``: a memory-mapped GGUF whose metadata and tensor table were validated.

::

    with GGUFFile.open("student-Q4_0.gguf") as file:
        print(file.metadata["general.architecture"], len(file.tensors))
        weight = file.weight("blk.0.attn_q.weight")  # a view of the mapped file, read when it is used

The parser is in :mod:`sprat.runtime.files.gguf_header`, the checks are in :mod:`sprat.runtime.files.gguf_checks`, and
:mod:`sprat.runtime.files.gguf_parts` finds the parts of a split model.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from sprat.errors import ModelFileError
from sprat.quant.formats.read_only import any_format
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.files.gguf_checks import TensorInfo, check_model
from sprat.runtime.files.gguf_header import ValueType
from sprat.runtime.files.gguf_parts import SPLIT_KEYS, MappedPart, OpenPart, open_parts
from sprat.runtime.files.split_name import model_stem
from sprat.runtime.weights import Weight

__all__ = ["GGUFFile", "TensorInfo"]


@dataclass(frozen=True, slots=True, eq=False)
class GGUFFile:
    """An open GGUF: metadata, the tensor table, and views of the weights (a ``WeightSource``).

    Attributes:
        path: the file; of a split model the first part.
        version: GGUF version, 2 or 3.
        metadata: key -> number, str, bool, ``list[str]`` or NumPy array, in file order; without the keys of a split.
        value_types: key -> ``(type,)``, or ``(ARRAY, element type)``, for writing a copy of the file.
        tensors: name -> :class:`TensorInfo`, in file order, part after part.
        alignment: tensor offsets are multiples of this many bytes, counted from the start of the data.
        parts: the mapped files; one unless the model is split.
    """

    format: ClassVar[str] = "gguf"

    path: Path
    version: int
    metadata: dict[str, Any]
    value_types: dict[str, tuple[ValueType, ...]]
    tensors: dict[str, TensorInfo]
    alignment: int
    parts: tuple[OpenPart, ...]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Map the model at ``path``, and check its metadata and tensor table; no tensor data is read.

        Args:
            path: a whole file, or any part of a split model (``NAME-00001-of-00003.gguf``).

        Raises:
            ModelFileError: a file cannot be opened, is not a GGUF, or is inconsistent; or parts are missing or of
                different models.
        """
        parts = open_parts(Path(path))
        header = parts[0].header
        metadata = {key: value for key, value in header.metadata.items() if key not in SPLIT_KEYS}
        tensors = {info.name: info for index, part in enumerate(parts) for info in part.numbered(index)}
        return cls(parts[0].path, header.version, metadata, header.value_types, tensors, header.alignment, parts)

    @property
    def name(self) -> str:
        """``general.name``, or the name of the file."""
        return str(self.metadata.get("general.name", model_stem(self.path)))

    @property
    def nbytes(self) -> int:
        """Size of all parts in bytes."""
        return sum(part.nbytes for part in self.parts)

    def files(self) -> list[Path]:
        """The files of all parts."""
        return [part.path for part in self.parts]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor, in file order."""
        return {name: info.shape for name, info in self.tensors.items()}

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
        packed = self.parts[info.part].bytes[info.offset : info.end].reshape(*info.shape[:-1], -1)
        return Weight(name, any_format(info.format_type), info.shape, packed)

    def check(self, spec: ModelSpec) -> None:
        """Compare tensors and vocabulary with the spec; see :func:`~sprat.runtime.files.gguf_checks.check_model`.

        Raises:
            ModelFileError: missing or unexpected tensors, size mismatches, or a vocabulary of another size.
        """
        check_model(spec, self.shapes, self.metadata, self.path)

    def ask_for_huge_pages(self) -> None:
        """Advise the kernel to map the file in huge pages, if it supports them; for files that fit into memory."""
        for part in self.parts:
            if isinstance(part, MappedPart):
                with suppress(AttributeError, OSError):  # not Linux, or a kernel without huge pages
                    part.map.madvise(mmap.MADV_HUGEPAGE)

    def check_unchanged(self) -> None:
        """Check that what was read so far are the file's bytes; see :mod:`sprat.runtime.files.mapped_file`.

        Raises:
            ModelFileChangedError: a part was truncated or rewritten, or cannot be read.
        """
        for part in self.parts:
            if isinstance(part, MappedPart):
                part.map.watch.check_unchanged()

    def close(self) -> None:
        """Do nothing: the file is unmapped with the last view of it. For symmetry with other sources."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
