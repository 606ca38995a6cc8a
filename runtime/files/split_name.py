"""Names of the parts of a split GGUF, by llama.cpp's convention: ``NAME-00001-of-00003.gguf``.

The convention is ``llama_split_path`` of llama.cpp: parts are counted from 1 in names, and from 0 in ``split.no``.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["first_part", "model_stem", "part_path", "split_name"]

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def split_name(path: Path) -> tuple[str, int, int] | None:
    """Stem, number and count in the name of a part; ``None`` for any other name.

    Example:
        >>> split_name(Path("V2-Lite-Q4_0-00002-of-00003.gguf"))
        ('V2-Lite-Q4_0', 2, 3)
    """
    found = _PART.fullmatch(path.name)
    return (found["stem"], int(found["number"]), int(found["count"])) if found else None


def part_path(path: Path, number: int, count: int) -> Path:
    """Path of part ``number``, counted from 1, of the whole file ``path``.

    Example:
        >>> part_path(Path("models/V2-Lite.gguf"), 2, 3).name
        'V2-Lite-00002-of-00003.gguf'
    """
    return path.with_name(f"{path.name.removesuffix('.gguf')}-{number:05}-of-{count:05}.gguf")


def first_part(path: Path) -> Path:
    """Part 1 of the split that ``path`` is a part of; ``path`` itself when it has no part's name."""
    found = split_name(path)
    return part_path(path.with_name(f"{found[0]}.gguf"), 1, found[2]) if found else path


def model_stem(path: Path) -> str:
    """Name of the model file without ``.gguf`` and without a part's number.

    Example:
        >>> model_stem(Path("V2-Lite-00002-of-00003.gguf")), model_stem(Path("V2-Lite.gguf"))
        ('V2-Lite', 'V2-Lite')
    """
    found = split_name(path)
    return found[0] if found else path.stem
