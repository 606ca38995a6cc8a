"""``InputMoments``: the second moments of a matrix's inputs, which say what an error of its weights costs.

The output error of ``x -> W x`` for a weight error ``D`` is ``D x``, and its mean square over the inputs is
``trace(D H D.T)`` with ``H = mean(x x.T)``: the objective of GPTQ (arXiv 2210.17323) and of LDLQ (arXiv 2307.13304).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sprat.arrays import F32Array
from sprat.errors import InputError

__all__ = ["InputMoments", "shrunk"]


@dataclass(slots=True)
class InputMoments:
    """Sum of ``x x.T`` over weighted inputs.

    Attributes:
        total: ``(k, k)``, the weighted sum.
        weight: sum of the weights; of unweighted inputs their number.
        n_tokens: inputs seen, whatever their weight.
    """

    total: F32Array
    weight: float = 0.0
    n_tokens: int = field(default=0)

    @classmethod
    def empty(cls, size: int) -> InputMoments:
        """No input of ``size`` elements was seen."""
        return cls(np.zeros((size, size), np.float32))

    def add(self, x: F32Array, weights: F32Array | None = None) -> None:
        """Add inputs ``(n, k)``, each with its weight ``(n,)``.

        Raises:
            InputError: the inputs have another width, or an element is not finite.
        """
        if x.shape[-1] != len(self.total):
            raise InputError(f"inputs of {x.shape[-1]} elements, expected {len(self.total)}")
        scaled = x if weights is None else x * weights[:, None]
        self.total += scaled.T @ x
        self.weight += float(len(x)) if weights is None else float(weights.sum())
        self.n_tokens += len(x)
        if not np.isfinite(np.trace(self.total)):
            raise InputError("an input of a matrix is not finite: the model's activations overflow on this text")

    def mean(self) -> F32Array:
        """``(k, k)``; the identity if no input was seen."""
        if self.weight <= 0:
            return np.eye(len(self.total), dtype=np.float32)
        return self.total / np.float32(self.weight)

    def mean_square(self) -> F32Array:
        """Mean square of each input element, ``(k,)``: llama.cpp's imatrix; ones if no input was seen."""
        if self.weight <= 0:
            return np.ones(len(self.total), np.float32)
        return np.diagonal(self.total) / np.float32(self.weight)


def shrunk(own: F32Array, n_tokens: int, common: F32Array, prior_tokens: float) -> F32Array:
    """Moments of an expert that saw ``n_tokens``, pulled towards those of its layer; both ``(k, k)``.

    An expert with fewer tokens than inputs has singular moments, which would make some errors look free.
    """
    share = np.float32(n_tokens / (n_tokens + prior_tokens))
    return share * own + (np.float32(1) - share) * common
