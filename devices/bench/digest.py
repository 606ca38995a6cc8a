"""Digest of a model file: its SHA-256, or for large files that of a sample.

Reading 8 GB from an SD card takes minutes and changes the page cache that a test depends on.
``docs/bench-results.md`` defines the sample.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["file_digest"]

_WHOLE_BYTES = 256 << 20
_BLOCK_BYTES = 1 << 20
_N_BLOCKS = 64


def file_digest(path: str | os.PathLike[str], whole_bytes: int = _WHOLE_BYTES) -> str:
    """``sha256:`` and the hash of the file, or ``sampled:`` and the hash of a sample.

    Args:
        path: the file.
        whole_bytes: files up to this size are read completely.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= whole_bytes:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        digest = hashlib.sha256(size.to_bytes(8, "little"))
        for index in range(_N_BLOCKS):
            file.seek((size - _BLOCK_BYTES) * index // (_N_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return f"sampled:{digest.hexdigest()}"
