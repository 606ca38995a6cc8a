"""``add_samples``: bytes that are spread over a file, and so tell it from another one without reading all of it."""

from __future__ import annotations

import hashlib
import os
from io import BufferedReader

__all__ = ["add_samples"]

_BEGIN_BYTES = 1 << 16


def add_samples(digest: hashlib._Hash, file: BufferedReader, n_samples: int, sample_bytes: int) -> None:
    """Add the file's size, its beginning, and ``n_samples`` parts at equal distances to ``digest``.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    digest.update(size.to_bytes(8, "little"))
    file.seek(0)
    digest.update(file.read(_BEGIN_BYTES))
    for sample in range(n_samples):
        file.seek(size * sample // n_samples)
        digest.update(file.read(sample_bytes))
