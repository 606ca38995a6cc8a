"""A file of tensors before it is written: what stands where, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["FileLayout", "PlacedTensor", "Sized", "Tensor"]


class Sized(Protocol):
    """What is written as one piece: a tensor, known by its name and its bytes without padding."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def nbytes(self) -> int:
        """Its bytes."""


Tensor = TypeVar("Tensor", bound=Sized)


@dataclass(frozen=True, slots=True)
class PlacedTensor(Generic[Tensor]):
    """A tensor and the bytes from its first to the end of its padding, counted from the start of the file."""

    tensor: Tensor
    begin: int
    end: int

    @property
    def padding(self) -> bytes:
        """Zeros between this tensor and the next."""
        return bytes(self.end - self.begin - self.tensor.nbytes)


class FileLayout(Protocol[Tensor]):
    """A whole file but for the bytes of its tensors; a GGUF's is :class:`~sprat.export.gguf.layout.Layout`."""

    @property
    def header(self) -> bytes:
        """What stands before the first tensor."""

    @property
    def tensors(self) -> Sequence[PlacedTensor[Tensor]]:
        """In file order, without gaps."""

    @property
    def nbytes(self) -> int:
        """Of the whole file."""

    def fingerprint(self) -> str:
        """Digest of everything that decides the file but the tensors' bytes."""
