"""The files of one GGUF model, mapped: usually one, several when the model is split as ``llama-gguf-split`` does.

Every part is a GGUF of its own with three keys: ``split.no`` (from 0), ``split.count`` and ``split.tensors.count``,
the number of tensors in all parts. The first part holds the other metadata. As in llama.cpp, a ``split.count`` of 0 or
1 is a whole file: ``llama-gguf-split --merge`` leaves 0. Parts are mapped where they are; nothing is merged.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
import numpy as np

from sprat.arrays import U8Array
from sprat.errors import ModelFileError
from sprat.runtime.files.gguf_checks import TensorInfo, check_layout, check_types
from sprat.runtime.files.gguf_header import Header, read_header
from sprat.runtime.files.mapped_file import GuardedMap
from sprat.runtime.files.shape_checks import summarize
from sprat.runtime.files.split_name import part_path, split_name

__all__ = ["SPLIT_KEYS", "MappedPart", "OpenPart", "open_parts"]

SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS = SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
_MAX_PARTS = 99_999  # five digits in the name


class OpenPart(Protocol):
    """Bytes that tensors of a model lie in."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def bytes(self) -> U8Array:
        """All bytes; the offsets of tensors count in them."""

    @property
    def nbytes(self) -> int:
        """Number of bytes."""


class MappedPart(msgspec.Struct, frozen=True, eq=False):
    """One mapped file, its header checked."""

    path: Path
    header: Header
    tensors: dict[str, TensorInfo]
    map: GuardedMap
    bytes: U8Array

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the file at ``path``, and check its metadata and tensor table; no tensor data is read.

        Raises:
            ModelFileError: the file cannot be opened, is not a GGUF, is inconsistent, or changes meanwhile.
        """
        data = _mapped(path)
        try:
            header = read_header(memoryview(data), str(path))
            check_types(header.metadata, str(path))
            tensors = check_layout(header, file_bytes=len(data), path=str(path))
        finally:
            data.watch.check_unchanged()
        return cls(path, header, tensors, data, np.frombuffer(data, np.uint8))

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return len(self.map)

    @property
    def metadata(self) -> dict[str, Any]:
        """The keys of this part."""
        return self.header.metadata

    @property
    def count(self) -> int:
        """Number of parts of the model."""
        return max(1, int(self.metadata.get(SPLIT_COUNT, 1)))

    def numbered(self, index: int) -> Iterator[TensorInfo]:
        """The tensors of this part, as part ``index`` of the model."""
        return (replace(info, part=index) for info in self.tensors.values())


def open_parts(path: Path) -> tuple[MappedPart, ...]:
    """The file at ``path``, or all parts of the split model that it belongs to, the first part first.

    Args:
        path: a whole file, or any part.

    Raises:
        ModelFileError: a file cannot be opened or is inconsistent, parts are missing, or they are not parts of one
            model.
    """
    named = MappedPart.open(path)
    if named.count == 1:
        return (named,)
    paths = _paths(path, named)
    missing = [part.name for part in paths if not part.exists()]
    if missing:
        raise ModelFileError(
            f"{path}: {len(missing)} of the {len(paths)} parts of this model are missing in {paths[0].parent}: "
            f"{summarize(missing)}; complete the download or copy them there"
        )
    parts = tuple(named if part == path else MappedPart.open(part) for part in paths)
    problems = [*_key_problems(parts), *_tensor_problems(parts)]
    if problems:
        raise ModelFileError(
            f"{path}: the {len(parts)} parts do not make one model: {summarize(problems)}; "
            "download or split the model again"
        )
    return parts


def _paths(path: Path, part: MappedPart) -> list[Path]:
    """Expected paths of the parts of the model."""
    for candidate in (path, path.resolve()):  # a link with another name may lead to a part
        name = split_name(candidate)
        if name is not None and name[2] == part.count:
            whole = candidate.with_name(f"{name[0]}.gguf")
            return [part_path(whole, number, part.count) for number in range(1, part.count + 1)]
    if part.count > _MAX_PARTS:
        raise ModelFileError(f"{path}: {SPLIT_COUNT} is {part.count}, expected at most {_MAX_PARTS}")
    number = int(part.metadata.get(SPLIT_NO, 0)) + 1
    raise ModelFileError(
        f"{path}: {SPLIT_COUNT} says that this is a part of a model in {part.count} files, "
        f"expected the name NAME-{number:05}-of-{part.count:05}.gguf, by which the others are found; rename the parts"
    )


def _key_problems(parts: Sequence[MappedPart]) -> Iterator[str]:
    """Keys by which parts contradict their names or each other."""
    first = parts[0]
    for index, part in enumerate(parts):
        expected = {SPLIT_NO: index, SPLIT_COUNT: len(parts)}
        if SPLIT_TENSORS in first.metadata:
            expected[SPLIT_TENSORS] = first.metadata[SPLIT_TENSORS]
        for key, value in expected.items():
            if part.metadata.get(key) != value:
                yield f"{key} is {part.metadata.get(key)} in {part.path.name}, expected {value}"
        for key in part.metadata.keys() & first.metadata.keys() - set(SPLIT_KEYS) - {"general.alignment"}:
            if not np.array_equal(part.metadata[key], first.metadata[key]):
                yield f"{key} is {_short(first, key)}, and {_short(part, key)}"


def _short(part: MappedPart, key: str) -> str:
    return f"{part.metadata[key]!r:.60} in {part.path.name}"


def _tensor_problems(parts: Sequence[MappedPart]) -> Iterator[str]:
    counts = Counter(name for part in parts for name in part.tensors)
    for name in (name for name, count in counts.items() if count > 1):
        places = ", ".join(part.path.name for part in parts if name in part.tensors)
        yield f"tensor {name!r} is in {places}"
    n_tensors, declared = counts.total(), parts[0].metadata.get(SPLIT_TENSORS, counts.total())
    if n_tensors != declared:
        yield f"they hold {n_tensors} tensors, and {SPLIT_TENSORS} is {declared}"


def _mapped(path: Path) -> GuardedMap:
    """The whole file, mapped read-only; links are followed, as in a Hugging Face cache."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # checked before opening: a pipe would block
            raise ModelFileError(f"{path}: not a regular file; expected a GGUF file")
        if status.st_size == 0:
            raise ModelFileError(f"{path}: byte 0: found an empty file, expected a GGUF; download or export it again")
        return GuardedMap.open(path)
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise ModelFileError(
                f"{path}: links to {path.readlink()}, which does not exist; complete the download"
            ) from error
        raise ModelFileError(f"{path}: cannot be opened ({error.strerror}); check path and permissions") from error
