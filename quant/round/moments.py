"""``InputMoments``: the second moments of a matrix's inputs, which say what an error of its weights costs.

The output error of ``x -> W x`` for a weight error ``D`` is ``D x``, and its mean square over the inputs is
``trace(D H D.T)`` with ``H = mean(x x.T)``: the objective of GPTQ (arXiv 2210.17323) and of LDLQ (arXiv 2307.13304).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sprat.arrays import F32Array
from sprat.errors import InputError

__all__ = ["InputMoments", "shrunk"]

_PANEL = 256


class InputMoments:
    """Sum of ``x x.T`` over weighted inputs: of the symmetric matrix, the lower half, or the diagonal alone.

    It is kept in panels of 256 rows, each up to its last row's diagonal element: a layer of DeepSeek-V2-Lite has 64
    experts with 25 MB of whole matrices each.

    Args:
        size: elements of an input.
        diagonal: sum squares alone, which is all that a scale search reads.
    """

    def __init__(self, size: int, *, diagonal: bool = False) -> None:
        self.weight = 0.0  # sum of the weights; of unweighted inputs their number
        self.n_tokens = 0  # inputs seen, whatever their weight
        self._size = size
        self._squares = np.zeros(size, np.float32) if diagonal else None
        edges = [] if diagonal else [*range(0, size, _PANEL), size]
        self._panels = [np.zeros((end - start, end), np.float32) for start, end in pairwise(edges)]

    def add(self, x: F32Array, weights: F32Array | None = None) -> None:
        """Add inputs ``(n, k)``, each with its weight ``(n,)``.

        Raises:
            InputError: the inputs have another width, or an element is not finite.
        """
        if x.shape[-1] != self._size:
            raise InputError(f"inputs of {x.shape[-1]} elements, expected {self._size}")
        scaled = x if weights is None else x * weights[:, None]
        if self._squares is not None:
            self._squares += np.einsum("ij,ij->j", scaled, x)
        for panel in self._panels:
            rows, end = panel.shape
            np.add(panel, scaled[:, end - rows : end].T @ x[:, :end], out=panel)
        self.weight += float(len(x)) if weights is None else float(weights.sum())
        self.n_tokens += len(x)
        if not np.isfinite(self._diagonal().sum()):
            raise InputError("an input of a matrix is not finite: the model's activations overflow on this text")

    def add_all(self, other: InputMoments) -> None:
        """Add all inputs of ``other``."""
        for panel, more in zip(self._panels, other._panels, strict=True):
            np.add(panel, more, out=panel)
        if self._squares is not None:
            self._squares += other._diagonal()
        self.weight += other.weight
        self.n_tokens += other.n_tokens

    def mean(self) -> F32Array:
        """``(k, k)``; the identity if no input was seen. Not of a diagonal alone."""
        assert self._squares is None, "only squares were summed"
        if self.weight <= 0:
            return np.eye(self._size, dtype=np.float32)
        full = np.empty((self._size, self._size), np.float32)
        for panel in self._panels:
            rows, end = panel.shape
            half = panel / np.float32(self.weight)
            full[end - rows : end, :end] = half
            full[: end - rows, end - rows : end] = half[:, : end - rows].T
            # On some processors BLAS rounds the two halves of a product that is symmetric differently.
            square = np.tril(half[:, end - rows :])
            full[end - rows : end, end - rows : end] = square + np.tril(square, -1).T
        return full

    def mean_square(self) -> F32Array:
        """Mean square of each input element, ``(k,)``: llama.cpp's imatrix; ones if no input was seen."""
        if self.weight <= 0:
            return np.ones(self._size, np.float32)
        return self._diagonal() / np.float32(self.weight)

    def _diagonal(self) -> F32Array:
        if self._squares is not None:
            return self._squares
        return np.concatenate([np.diagonal(panel, panel.shape[1] - panel.shape[0]) for panel in self._panels])


def shrunk(own: F32Array, n_tokens: int, common: F32Array, prior_tokens: float) -> F32Array:
    """Moments of an expert that saw ``n_tokens``, pulled towards those of its layer; both ``(k, k)``.

    An expert with fewer tokens than inputs has singular moments, which would make some errors look free.
    """
    share = np.float32(n_tokens / (n_tokens + prior_tokens))
    return share * own + (np.float32(1) - share) * common
