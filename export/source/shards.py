"""The safetensors files of a checkpoint folder, and the offset of each tensor.

The library ``safetensors`` validates a file's header (size, JSON, tensors that follow each other without gap or overlap
up to the end of the file) and returns names, types and shapes. It cannot return BF16 or FP8 as NumPy arrays, which have
no such types, so sprat reads the bytes itself. Without gaps, each tensor begins where the previous one ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sprat.errors import CheckpointError
from sprat.export.source.file import FileTensor, SourceFile
from sprat.export.source.fp8 import F8_E4M3, F8_E8M0, SCALE_SUFFIX
from sprat.export.source.recognize.folder_kinds import what_folder
from sprat.export.source.recognize.tensor_kinds import refuse_known_tensors
from sprat.files import DocumentError, parse_json, read_input
from sprat.quant.formats import BlockFormat, get_format
from sprat.runtime.files.shape_checks import summarize

__all__ = ["find_shards", "read_shards", "unread_note"]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_STEM = "model"
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5,6})-of-(?P<count>\d{5,6})\.safetensors")
_MAX_NAME_BYTES = 255  # of file systems
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_FORMATS: Mapping[str, BlockFormat] = {
    **{name: get_format(name) for name in ("F32", "F16", "BF16")},
    F8_E4M3.name: F8_E4M3,
    F8_E8M0.name: F8_E8M0,
}


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def find_shards(folder: Path) -> dict[SourceFile, frozenset[str]]:
    """The safetensors files of ``folder``, each with the tensor names that the index lists for it (none without index).

    Raises:
        CheckpointError: there are none, or the index is malformed, names a file outside the folder, or names a missing
            file.
    """
    if (folder / INDEX).is_file():
        indexed = _index(folder)
        if SINGLE in indexed or not (folder / SINGLE).exists():
            return _indexed(folder, indexed)
    found = _without_index(folder)
    if not found:
        raise CheckpointError(_no_shards(folder))
    return {SourceFile.find(path): frozenset() for path in found}


def unread_note(folder: Path, shards: Iterable[SourceFile]) -> Iterator[str]:
    """A note for the user if the shards of an index are not read, since a file with all tensors is beside them.

    Args:
        folder: the checkpoint.
        shards: what :func:`find_shards` found.
    """
    if (folder / INDEX).is_file() and (unread := _index(folder).keys() - {file.path.name for file in shards}):
        yield (
            f"{SINGLE} is read, as transformers does, and not the {len(unread)} files that {INDEX} lists: remove "
            f"{SINGLE} if they are the model"
        )


def read_shards(shards: Mapping[SourceFile, frozenset[str]]) -> dict[str, FileTensor]:
    """Every tensor of ``shards``; only the headers are read.

    Raises:
        CheckpointError: a malformed header, a truncated file, an unsupported type, or shards that contradict the index
            or each other.
    """
    tensors: dict[str, FileTensor] = {}
    problems: list[str] = []
    for file, indexed in shards.items():
        here = {tensor.name: tensor for tensor in _read_header(file)}
        shard = file.path.name
        problems += [f"{name!r} is not in {shard}, where {INDEX} lists it" for name in indexed - here.keys()]
        problems += [f"{name!r} is in {tensors[name].file.path.name} and in {shard}" for name in here.keys() & tensors]
        tensors |= here
    if problems:
        raise CheckpointError(f"{file.path.parent}: {summarize(sorted(problems))}; complete the download")
    return tensors


def _index(folder: Path) -> dict[str, set[str]]:
    """Name of each shard in the index -> the tensors that it lists there."""
    index = folder / INDEX
    try:
        weight_map = parse_json(read_input(index), _Index).weight_map
    except (OSError, DocumentError) as error:
        raise CheckpointError(f"{index}: not an index of shards ({error}); download it again") from error
    indexed: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        indexed.setdefault(shard, set()).add(name)
    return indexed


def _indexed(folder: Path, indexed: Mapping[str, set[str]]) -> dict[SourceFile, frozenset[str]]:
    shards = sorted(indexed)
    outside = [repr(shard) for shard in shards if not _is_in_folder(shard)]
    if outside:
        raise CheckpointError(
            f"{folder / INDEX}: names {summarize(outside)}; expected names of .safetensors files in the same folder"
        )
    _check_present(folder, shards)
    return {SourceFile.find(folder / shard): frozenset(indexed[shard]) for shard in shards}


def _without_index(folder: Path) -> list[Path]:
    """The files of a checkpoint without an index: one, or the numbered ones, or all that there are.

    Beside numbered files there may be others: an adapter, the state of an optimizer, the same weights in one file.
    """
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    found = sorted(folder.glob("[!.]*.safetensors"))  # macOS writes attributes to "._" files
    numbered = [match for path in found if (match := _NUMBERED.fullmatch(path.name))]
    stems = {match["stem"] for match in numbered}
    if not stems or (len(stems) > 1 and _STEM not in stems):
        return found
    stem = _STEM if _STEM in stems else stems.pop()
    first = next(match for match in numbered if match["stem"] == stem)
    digits, count = len(first["number"]), int(first["count"])
    names = [f"{stem}-{number:0{digits}}-of-{first['count']}.safetensors" for number in range(1, count + 1)]
    _check_present(folder, names)
    return [folder / name for name in names]


def _check_present(folder: Path, shards: Sequence[str]) -> None:
    missing = [repr(shard) for shard in shards if not (folder / shard).exists()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(shards)} shards are missing: {summarize(missing)}; complete the download"
        )


def _is_in_folder(shard: str) -> bool:
    """Whether ``shard`` can only name a safetensors file in the index's folder."""
    is_plain = shard.endswith(".safetensors") and Path(shard).name == shard and "\0" not in shard
    return is_plain and len(shard.encode()) <= _MAX_NAME_BYTES


def _no_shards(folder: Path) -> str:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"{folder}: its weights are pickled ({summarize(pickles)}); pickle can run code, so sprat refuses it: "
            "if you trust the model, convert it to safetensors with transformers' save_pretrained"
        )
    if problem := what_folder(folder):
        return problem
    return f"{folder}: contains no *.safetensors; expected a Hugging Face model directory or a GGUF file"


def _read_header(file: SourceFile) -> Iterator[FileTensor]:
    entries = [(name, _plain_type(name, dtype), shape) for name, dtype, shape in _entries(file.path)]
    unknown = sorted({f"{dtype} ({name!r})" for name, dtype, _ in entries if dtype not in _FORMATS})
    if unknown:
        refuse_known_tensors(file.path, (name for name, _, _ in entries))
        raise CheckpointError(
            f"{file.path}: tensors of type {summarize(unknown)}; sprat reads {', '.join(_FORMATS)}: save the model in "
            "one of these with transformers' model.to(torch.bfloat16).save_pretrained(DIR)"
        )
    # safetensors checked that the tensors fill the file up to its end, so the remaining bytes are the header.
    sizes = [math.prod(shape) * _FORMATS[dtype].block_bytes for _, dtype, shape in entries]
    offset = file.nbytes - sum(sizes)
    for (name, dtype, shape), nbytes in zip(entries, sizes, strict=True):
        yield FileTensor(name, tuple(shape), _FORMATS[dtype], file, offset)
        offset += nbytes
    file.check_unchanged()


def _plain_type(name: str, dtype: str) -> str:
    """MXFP8 checkpoints store UE8M0 scales as plain bytes."""
    return F8_E8M0.name if dtype == "U8" and name.endswith(SCALE_SUFFIX) else dtype


def _entries(path: Path) -> list[tuple[str, str, list[int]]]:
    """Name, type and shape of each tensor, in file order."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as shard:
            slices: list[tuple[str, Any]] = [(name, shard.get_slice(name)) for name in shard.offset_keys()]
            return [(name, part.get_dtype(), part.get_shape()) for name, part in slices]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a complete safetensors file ({error}); download it again") from error
