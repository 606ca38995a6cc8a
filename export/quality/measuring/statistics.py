"""Statistics of the inputs of a layer's matrices: second moments per matrix, per expert and per head."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sprat.arrays import F32Array
from sprat.quant.round.moments import InputMoments, shrunk
from sprat.runtime.weights import Weight

__all__ = ["PRIOR_TOKENS", "MatrixMoments", "MomentsRecorder"]

PRIOR_TOKENS = 256.0
"""Tokens that the layer's moments count for beside an expert's own."""


class MatrixMoments:
    """The moments of one tensor: one matrix, or one per expert or head of a stack.

    Args:
        n_parts: experts or heads; 1 for a matrix.
        size: elements of an input.
        diagonal: sum squares alone.
    """

    def __init__(self, n_parts: int, size: int, *, diagonal: bool = False) -> None:
        self._size = size
        self._diagonal = diagonal
        self._parts: list[InputMoments | None] = [None] * n_parts

    def add(self, x: F32Array, weights: F32Array | None, index: int) -> None:
        """Add inputs of one part."""
        part = self._parts[index]
        if part is None:
            part = self._parts[index] = InputMoments(self._size, diagonal=self._diagonal)
        part.add(x, weights)

    @property
    def n_tokens(self) -> list[int]:
        """Inputs that each part has seen."""
        return [part.n_tokens if part else 0 for part in self._parts]

    def share(self, index: int) -> float:
        """Weight of a part's outputs: the sum of its weights, 1 per token of an unweighted input."""
        part = self._parts[index]
        return part.weight if part else 0.0

    def common(self) -> F32Array:
        """The moments of all parts together, ``(k, k)``; the identity if none saw an input."""
        return self._together().mean()

    def of_part(self, index: int, common: F32Array) -> F32Array:
        """The moments of one part, shrunk to those of all parts where it has seen few inputs."""
        part = None if len(self._parts) == 1 else self._parts[index]
        if part is None:
            return common
        return shrunk(part.mean(), part.n_tokens, common, PRIOR_TOKENS)

    def squares_of_part(self, index: int, common: F32Array) -> F32Array:
        """The diagonal of :meth:`of_part`, from that of :meth:`common`, ``(k,)``."""
        part = None if len(self._parts) == 1 else self._parts[index]
        if part is None:
            return common
        return shrunk(part.mean_square(), part.n_tokens, common, PRIOR_TOKENS)

    def common_squares(self) -> F32Array:
        """The diagonal of :meth:`common`, ``(k,)``."""
        return self._together().mean_square()

    def mean_squares(self) -> F32Array:
        """Mean square of each input, ``(n_parts, k)``: llama.cpp's imatrix; of all parts for one that saw nothing."""
        everywhere = self.common_squares()
        return np.stack([part.mean_square() if part else everywhere for part in self._parts])

    def _together(self) -> InputMoments:
        seen = [part for part in self._parts if part]
        if len(seen) == 1:
            return seen[0]
        total = InputMoments(self._size, diagonal=self._diagonal)
        for part in seen:
            total.add_all(part)
        return total


class MomentsRecorder:
    """An ``InputObserver`` that sums the moments of every matrix by name.

    Matrices with the same inputs share one sum: q, k and v; gate and up.

    Args:
        diagonal: sum squares alone.
    """

    def __init__(self, *, diagonal: bool = False) -> None:
        self._diagonal = diagonal
        self.moments: dict[str, MatrixMoments] = {}
        self._last: tuple[F32Array, int, MatrixMoments] | None = None

    def __call__(self, weight: Weight, x: F32Array, weights: F32Array | None = None, index: int | None = None) -> None:
        """Add the inputs of ``weight``."""
        if self._last is not None and self._last[0] is x and self._last[1] == (index or 0):
            self.moments.setdefault(weight.name, self._last[2])
            return
        n_parts = 1 if index is None else weight.shape[0]
        new = MatrixMoments(n_parts, weight.shape[-1], diagonal=self._diagonal)
        own = self.moments.setdefault(weight.name, new)
        own.add(x, weights, index or 0)
        self._last = x, index or 0, own

    def names(self) -> Iterable[str]:
        """Tensors whose inputs were seen."""
        return self.moments.keys()
