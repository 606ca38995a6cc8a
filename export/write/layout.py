"""A file of tensors before it is written: the offset of every tensor, whatever the file format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["PAGE_BYTES", "FileLayout", "PlacedTensor", "Sized", "Tensor"]

PAGE_BYTES = 4096  # alignment at which a tensor or an expert can be mapped or read ahead on its own


class Sized(Protocol):
    """Unit of writing: a tensor, by name and size without padding."""

    @property
    def name(self) -> str:
        """The tensor's name."""

    @property
    def nbytes(self) -> int:
        """The tensor's bytes."""


Tensor = TypeVar("Tensor", bound=Sized)


@dataclass(frozen=True, slots=True)
class PlacedTensor(Generic[Tensor]):
    """A tensor at its offset in the file: bytes ``begin`` to ``end``, padding included."""

    tensor: Tensor
    begin: int
    end: int

    @property
    def padding(self) -> bytes:
        """Zeros between this tensor and the next."""
        return bytes(self.end - self.begin - self.tensor.nbytes)


class FileLayout(Protocol[Tensor]):
    """A whole file except the bytes of its tensors, for example :class:`~sprat.export.gguf.layout.GGUFLayout`."""

    @property
    def header(self) -> bytes:
        """The bytes before the first tensor."""

    @property
    def tensors(self) -> Sequence[PlacedTensor[Tensor]]:
        """The tensors in file order, without gaps between them."""

    @property
    def nbytes(self) -> int:
        """Size of the file."""

    def digest(self) -> str:
        """SHA-256 of everything that decides the file's bytes except the weights."""
