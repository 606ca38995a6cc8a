"""``InputMoments``: the second moments of a matrix's inputs, which say what an error of its weights costs.

The output error of ``x -> W x`` for a weight error ``D`` is ``D x``, and its mean square over the inputs is
``trace(D H D.T)`` with ``H = mean(x x.T)``: the objective of GPTQ (arXiv 2210.17323) and of LDLQ (arXiv 2307.13304).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sprat.arrays import F32Array
from sprat.errors import InputError

__all__ = ["InputMoments", "diagonal_of", "equal_moments", "shrunk"]


@dataclass(slots=True)
class InputMoments:
    """Sum of ``x x.T`` over weighted inputs, or of its diagonal, which is all that a scale search reads.

    Attributes:
        total: ``(k, k)``, the weighted sum; ``(k,)`` of the diagonal.
        weight: sum of the weights; of unweighted inputs their number.
        n_tokens: inputs seen, whatever their weight.
    """

    total: F32Array
    weight: float = 0.0
    n_tokens: int = field(default=0)

    @classmethod
    def empty(cls, size: int, *, diagonal: bool = False) -> InputMoments:
        """No input of ``size`` elements was seen."""
        return cls(np.zeros(size if diagonal else (size, size), np.float32))

    def add(self, x: F32Array, weights: F32Array | None = None) -> None:
        """Add inputs ``(n, k)``, each with its weight ``(n,)``.

        Raises:
            InputError: the inputs have another width, or an element is not finite.
        """
        if x.shape[-1] != len(self.total):
            raise InputError(f"inputs of {x.shape[-1]} elements, expected {len(self.total)}")
        scaled = x if weights is None else x * weights[:, None]
        self.total += np.einsum("ij,ij->j", scaled, x) if self.total.ndim == 1 else scaled.T @ x
        self.weight += float(len(x)) if weights is None else float(weights.sum())
        self.n_tokens += len(x)
        if not np.isfinite(diagonal_of(self.total).sum()):
            raise InputError("an input of a matrix is not finite: the model's activations overflow on this text")

    def mean(self) -> F32Array:
        """``(k, k)``, or ``(k,)`` of the diagonal; equal moments if no input was seen."""
        if self.weight <= 0:
            return equal_moments(len(self.total), diagonal=self.total.ndim == 1)
        return self.total / np.float32(self.weight)

    def mean_square(self) -> F32Array:
        """Mean square of each input element, ``(k,)``: llama.cpp's imatrix; ones if no input was seen."""
        if self.weight <= 0:
            return equal_moments(len(self.total), diagonal=True)
        return diagonal_of(self.total) / np.float32(self.weight)


def equal_moments(size: int, *, diagonal: bool = False) -> F32Array:
    """Moments of inputs that count alike: the identity ``(size, size)``, or its diagonal."""
    return np.ones(size, np.float32) if diagonal else np.eye(size, dtype=np.float32)


def diagonal_of(moments: F32Array) -> F32Array:
    """Mean squares ``(k,)`` of moments ``(k, k)``; of a diagonal, itself."""
    return moments if moments.ndim == 1 else np.diagonal(moments)


def shrunk(own: F32Array, n_tokens: int, common: F32Array, prior_tokens: float) -> F32Array:
    """Moments of an expert that saw ``n_tokens``, pulled towards those of its layer; both ``(k, k)`` or ``(k,)``.

    An expert with fewer tokens than inputs has singular moments, which would make some errors look free.
    """
    share = np.float32(n_tokens / (n_tokens + prior_tokens))
    return share * own + (np.float32(1) - share) * common
