"""GGUF files rewritten by the package ``gguf``: split into parts, or with other metadata."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

Key = tuple[list[GGUFValueType], Any]


def keys_of(source: Path) -> dict[str, Key]:
    """Key -> types and value; without the alignment, which the writer chooses."""
    fields = GGUFReader(source).fields
    left_out = ("GGUF.", "general.alignment")
    return {key: (field.types, field.contents()) for key, field in fields.items() if not key.startswith(left_out)}


def rewrite(source: Path, target: Path, changes: dict[str, Key | None]) -> Path:
    """The same tensors with other keys; ``None`` deletes a key."""
    keys = {key: value for key, value in (keys_of(source) | changes).items() if value is not None}
    return _write(GGUFWriter(target, keys.pop("general.architecture")[1]), source, keys, target)


def split(
    source: Path, folder: Path, *, max_tensors: int, stem: str = "model", empty_first: bool = False
) -> list[Path]:
    """``source`` as parts of at most ``max_tensors`` tensors each."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = keys_of(source)
    writer = GGUFWriter(
        folder / f"{stem}.gguf",
        keys.pop("general.architecture")[1],
        split_max_tensors=max_tensors,
        small_first_shard=empty_first,
    )
    _write(writer, source, keys, folder)
    return sorted(folder.glob(f"{stem}-*.gguf"))


def _write(writer: GGUFWriter, source: Path, keys: dict[str, Key], target: Path) -> Path:
    for key, (types, value) in keys.items():
        if types[0] == GGUFValueType.ARRAY:
            writer.add_array(key, list(value))
        else:
            writer.add_key_value(key, value, types[0])
    for tensor in GGUFReader(source).tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
