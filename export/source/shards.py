"""The safetensors files of a checkpoint directory, and where each tensor lies in them.

The library ``safetensors`` checks a file's header (its size, JSON, that the tensors' bytes follow each other without
gap or overlap up to the file's end) and tells names, types and shapes. It cannot hand out BF16 or FP8 through NumPy,
which has no such types, so the bytes are read at their place instead: since there are no gaps, a tensor begins where
the one before it ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sprat.errors import CheckpointError
from sprat.export.source.fp8 import F8_E4M3
from sprat.export.source.stored import SourceFile, StoredTensor
from sprat.quant.formats import BlockFormat, get_format
from sprat.runtime.files.gguf_checks import listing

__all__ = ["find_shards", "read_shards"]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_FORMATS: Mapping[str, BlockFormat] = {
    **{name: get_format(name) for name in ("F32", "F16", "BF16")},
    F8_E4M3.name: F8_E4M3,
}


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def find_shards(folder: Path) -> dict[SourceFile, frozenset[str]]:
    """The safetensors files of ``folder``, each with the names that the index promises in it (none without an index).

    Raises:
        CheckpointError: there are none, the index cannot be read, or it names a file outside the folder or one that is
            missing.
    """
    if (folder / INDEX).is_file():
        return _indexed(folder)
    single = folder / SINGLE
    found = [single] if single.exists() else sorted(folder.glob("*.safetensors"))
    if not found:
        raise CheckpointError(_nothing_found(folder))
    return {SourceFile.find(path): frozenset() for path in found}


def read_shards(shards: Mapping[SourceFile, frozenset[str]]) -> dict[str, StoredTensor]:
    """Every tensor of ``shards``; only the headers are read.

    Raises:
        CheckpointError: a damaged header, a truncated file, an unsupported type, or shards that contradict the index
            or each other.
    """
    tensors: dict[str, StoredTensor] = {}
    problems: list[str] = []
    for file, promised in shards.items():
        here = {tensor.name: tensor for tensor in _read_header(file)}
        shard = file.path.name
        problems += [f"{shard} does not hold {name!r}, as {INDEX} says" for name in promised - here.keys()]
        problems += [f"{name!r} is in {tensors[name].file.path.name} and in {shard}" for name in here.keys() & tensors]
        tensors |= here
    if problems:
        raise CheckpointError(f"{file.path.parent}: {listing(sorted(problems))}; complete the download")
    return tensors


def _indexed(folder: Path) -> dict[SourceFile, frozenset[str]]:
    index = folder / INDEX
    try:
        weight_map = msgspec.json.decode(index.read_bytes(), type=_Index).weight_map
    except (OSError, msgspec.MsgspecError) as error:
        raise CheckpointError(f"{index}: not an index of shards ({error}); download it again") from error
    promised: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        promised.setdefault(shard, set()).add(name)
    shards = sorted(promised)
    outside = [repr(shard) for shard in shards if not _is_plain(shard)]
    if outside:
        raise CheckpointError(
            f"{index}: names {listing(outside)}; expected names of .safetensors files in the same folder"
        )
    missing = [repr(shard) for shard in shards if not (folder / shard).exists()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(shards)} shards are missing: {listing(missing)}; complete the download"
        )
    return {SourceFile.find(folder / shard): frozenset(promised[shard]) for shard in shards}


def _is_plain(shard: str) -> bool:
    """Whether ``shard`` can only be a file in the index's own folder."""
    return shard.endswith(".safetensors") and Path(shard).name == shard and "\0" not in shard


def _nothing_found(folder: Path) -> str:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"{folder}: holds its weights as pickle ({listing(pickles)}), which can run code when it is read, "
            "so sprat does not; where you trust it, convert it to safetensors with transformers' save_pretrained"
        )
    return f"{folder}: no *.safetensors in it; expected a Hugging Face model directory or a GGUF file"


def _read_header(file: SourceFile) -> Iterator[StoredTensor]:
    entries = _entries(file.path)
    unknown = sorted({f"{dtype} ({name!r})" for name, dtype, _ in entries if dtype not in _FORMATS})
    if unknown:
        raise CheckpointError(f"{file.path}: tensors of type {listing(unknown)}; sprat reads {', '.join(_FORMATS)}")
    # The lengths are consistent with the file's, so what they do not explain is the header before them.
    sizes = [math.prod(shape) * _FORMATS[dtype].block_bytes for _, dtype, shape in entries]
    offset = file.nbytes - sum(sizes)
    for (name, dtype, shape), nbytes in zip(entries, sizes, strict=True):
        yield StoredTensor(name, tuple(shape), _FORMATS[dtype], file, offset)
        offset += nbytes
    file.check_unchanged()


def _entries(path: Path) -> list[tuple[str, str, list[int]]]:
    """Name, type and shape of each tensor, in the order of their bytes."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as shard:
            slices: list[tuple[str, Any]] = [(name, shard.get_slice(name)) for name in shard.offset_keys()]
            return [(name, part.get_dtype(), part.get_shape()) for name, part in slices]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); download it again") from error
