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
from sprat.export.fp8 import F8_E4M3
from sprat.export.stored import SourceFile, StoredTensor
from sprat.quant.formats import BlockFormat, get_format
from sprat.runtime.validate import listing

__all__ = ["read_shards", "shard_paths"]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_FORMATS: Mapping[str, BlockFormat] = {
    **{name: get_format(name) for name in ("F32", "F16", "BF16")},
    F8_E4M3.name: F8_E4M3,
}


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def shard_paths(folder: Path) -> dict[Path, set[str] | None]:
    """The safetensors files of ``folder``, each with the names that the index promises in it.

    Without an index nothing is promised: ``None``.

    Raises:
        CheckpointError: there are none, the index cannot be read, or it names a file outside the folder or one that is
            missing.
    """
    index = folder / INDEX
    if index.exists():
        return _indexed(folder, index)
    if (folder / SINGLE).exists():
        return {folder / SINGLE: None}
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise CheckpointError(_nothing_found(folder))
    return dict.fromkeys(found)


def read_shards(shards: Mapping[Path, set[str] | None]) -> dict[str, StoredTensor]:
    """Every tensor of ``shards``; only the headers are read.

    Raises:
        CheckpointError: a damaged header, a truncated file, an unsupported type, or shards that contradict the index or
            each other.
    """
    tensors: dict[str, StoredTensor] = {}
    problems: list[str] = []
    for path, promised in shards.items():
        here = {tensor.name: tensor for tensor in _read_header(path)}
        problems += [
            f"{path.name} does not hold {name!r}, as {INDEX} says" for name in (promised or set()) - here.keys()
        ]
        problems += [
            f"{name!r} is in {tensors[name].file.path.name} and in {path.name}" for name in here.keys() & tensors
        ]
        tensors |= here
    if problems:
        raise CheckpointError(f"{path.parent}: {listing(sorted(problems))}; complete the download")
    return tensors


def _indexed(folder: Path, index: Path) -> dict[Path, set[str] | None]:
    try:
        weight_map = msgspec.json.decode(index.read_bytes(), type=_Index).weight_map
    except (OSError, msgspec.MsgspecError) as error:
        raise CheckpointError(f"{index}: not an index of shards ({error}); download it again") from error
    names = sorted(set(weight_map.values()))
    outside = [repr(name) for name in names if Path(name).name != name or name in {"", ".", ".."} or "\0" in name]
    if outside:
        raise CheckpointError(f"{index}: names files outside its folder: {listing(outside)}; expected plain file names")
    foreign = [repr(name) for name in names if not name.endswith(".safetensors")]
    if foreign:
        raise CheckpointError(f"{index}: {listing(foreign)}: expected names that end in .safetensors")
    missing = [repr(name) for name in names if not (folder / name).exists()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(names)} shards are missing: {listing(missing)}; complete the download"
        )
    promised: dict[Path, set[str] | None] = {}
    for shard in names:
        promised[folder / shard] = {name for name, place in weight_map.items() if place == shard}
    return promised


def _nothing_found(folder: Path) -> str:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"{folder}: holds its weights as pickle ({listing(pickles)}), which can run code when it is read, "
            "so sprat does not read it; convert it to safetensors where you trust it: AutoModel.from_pretrained(…).save_pretrained(…)"
        )
    return f"{folder}: no *.safetensors in it; expected a Hugging Face model directory or a GGUF file"


def _read_header(path: Path) -> Iterator[StoredTensor]:
    file = SourceFile.find(path)
    entries = _entries(path)
    unknown = sorted({f"{dtype} ({name!r})" for name, dtype, _ in entries if dtype not in _FORMATS})
    if unknown:
        raise CheckpointError(f"{path}: tensors of type {listing(unknown)}; sprat reads {', '.join(_FORMATS)}")
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
