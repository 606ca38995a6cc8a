"""The SHA-256 that a manifest holds of itself, so that damage to any of its bytes is found.

It is that of the whole text with the digits of this value replaced by zeros.
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["UNSEALED", "is_sealed", "seal", "seal_problem"]

UNSEALED = "0" * 64
"""The value in a manifest whose digest is not computed yet."""

_VALUE = re.compile(rb'("manifest_sha256"\s*:\s*")([0-9a-f]{64})"')


def seal(text: bytes) -> bytes:
    """``text`` of a manifest, with its digest in the place of :data:`UNSEALED`."""
    return _VALUE.sub(rb"\g<1>" + _digest(text).encode() + b'"', text)


def is_sealed(text: bytes) -> bool:
    """Whether the manifest holds its digest; those of sprat 0.1 do not."""
    return _VALUE.search(text) is not None


def seal_problem(text: bytes) -> str:
    """Mismatch between a manifest and its digest of itself; empty if they agree, or if there is no digest."""
    found = _VALUE.search(text)
    if found is None or found[2].decode() == _digest(text):
        return ""
    return f"'manifest.json' has SHA-256 {_digest(text)}, and says that it has {found[2].decode()}"


def _digest(text: bytes) -> str:
    return hashlib.sha256(_VALUE.sub(rb"\g<1>" + UNSEALED.encode() + b'"', text)).hexdigest()
