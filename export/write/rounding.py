"""``Rounding``: what a writer asks for tensors that are not rounded blindly."""

from __future__ import annotations

from typing import Protocol

from sprat.arrays import U8Array
from sprat.quant.formats import BlockFormat

__all__ = ["Rounding"]


class Rounding(Protocol):
    """Rounds the tensors of a model one by one, in file order."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything besides source and format that decides the bytes."""

    def has(self, name: str) -> bool:
        """Whether the tensor is rounded here."""

    def round(self, name: str, format: BlockFormat) -> U8Array:
        """The packed tensor, ``(n_rows, row_bytes)``."""
