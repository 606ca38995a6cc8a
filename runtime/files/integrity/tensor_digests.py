"""The digests of a GGUF's tensors in a manifest: where in a file the damage is, in 22 characters per tensor.

In base64, 16 bytes each, the first half of a SHA-256: of the header, then of every tensor with the padding after it, in
file order. Together they cover every byte of the file. The names and offsets are in the file's header.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from pathlib import Path

from sprat.errors import ModelFileError
from sprat.runtime.files.gguf_parts import MappedPart
from sprat.runtime.files.integrity.piece_hashes import Piece

__all__ = ["DIGEST_BYTES", "gguf_pieces", "pack_digests"]

DIGEST_BYTES = 16


def pack_digests(digests: Iterable[bytes]) -> str:
    """Digests as the text in a manifest; each is cut to :data:`DIGEST_BYTES`."""
    return base64.b64encode(b"".join(digest[:DIGEST_BYTES] for digest in digests)).decode()


def gguf_pieces(path: Path, packed: str) -> list[Piece]:
    """The header and the tensors of the GGUF at ``path`` with their digests, to be compared.

    Raises:
        ModelFileError: the header cannot be read, or has another number of tensors than there are digests.
    """
    try:
        digests = list(_unpack(packed))
    except (binascii.Error, ValueError) as error:
        raise ModelFileError(f"the manifest's tensor digests are damaged ({error})") from error
    part = MappedPart.open(path)
    infos = sorted(part.tensors.values(), key=lambda info: info.offset)
    if len(digests) != len(infos) + 1:
        raise ModelFileError(f"it holds {len(infos)} tensors, the manifest has digests of {len(digests) - 1}")
    begins = [0, *(info.offset for info in infos)]
    ends = [*begins[1:], part.nbytes]
    names = ["the header", *(f"tensor {info.name}" for info in infos)]
    return [Piece(path, *piece) for piece in zip(names, begins, ends, digests, strict=True)]


def _unpack(packed: str) -> Iterator[bytes]:
    data = base64.b64decode(packed, validate=True)
    if not data or len(data) % DIGEST_BYTES:
        raise ValueError(f"{len(data)} bytes, expected a multiple of {DIGEST_BYTES}")
    return (data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES))
