"""Candidates against the source on a text: per token, so that two candidates are compared on the same tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sprat.arrays import F32Array, F64Array
from sprat.export.quality.measuring.layer_pass import LayerPass
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.weights import WeightSource

__all__ = ["Score", "difference", "divergences", "ratio", "score"]

_CHUNK = 128  # tokens whose logits are in memory at once


@dataclass(frozen=True, slots=True)
class Score:
    """Distance of a candidate from its source.

    Attributes:
        kld: KL divergence of each token in nats, ``(n,)``.
        same_top: whether both have the same top token, ``(n,)``.
    """

    kld: F64Array
    same_top: F64Array

    @property
    def mean(self) -> float:
        """Mean KL divergence."""
        return float(self.kld.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean; of tokens taken as independent, so a lower bound."""
        return float(self.kld.std() / math.sqrt(max(1, len(self.kld) - 1)))


def score(layers: LayerPass, candidates: Mapping[str, WeightSource]) -> dict[str, Score]:
    """Score other weights of the same model, all in one pass: one layer of each is in memory.

    Args:
        layers: the source and the sequences.
        candidates: name -> weights.
    """
    kernels = ReferenceKernels(0)
    sources = {"": layers.weights, **candidates}
    states = {name: layers.embed(kernels, source.weight("token_embd.weight")) for name, source in sources.items()}
    for layer in range(layers.spec.n_layers):
        for name, source in sources.items():
            layers.run(layers.block(layer, source), states[name], ReferenceKernels())
    heads = {name: layers.head(source) for name, source in sources.items()}
    found: dict[str, list[F64Array]] = {name: [] for name in candidates}
    kernels = ReferenceKernels()
    for start in range(0, layers.n_tokens, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        base = kernels.logits(states[""][chunk], heads[""])
        for name in candidates:
            found[name].append(divergences(base, kernels.logits(states[name][chunk], heads[name])))
    return {name: Score(*np.concatenate(rows, axis=1)) for name, rows in found.items()}


def divergences(base: F32Array, logits: F32Array) -> F64Array:
    """KL divergence of each row, and whether its top token is the same; ``(2, n)``, of logits ``(n, vocab_size)``."""
    log_base, log_other = _log_softmax(base), _log_softmax(logits)
    kld = np.einsum("ij,ij->i", np.exp(log_base), log_base - log_other, dtype=np.float64)
    return np.stack([kld, base.argmax(axis=1) == logits.argmax(axis=1)])


def difference(a: Score, b: Score) -> tuple[float, float]:
    """Mean of ``a`` less that of ``b``, and the standard error of the paired difference."""
    paired = a.kld - b.kld
    return float(paired.mean()), float(paired.std() / math.sqrt(max(1, len(paired) - 1)))


def ratio(a: Score, b: Score) -> tuple[float, float]:
    """Mean of ``a`` over that of ``b``, and its standard error by the delta method, paired by token."""
    value = a.mean / b.mean
    spread = (a.kld - value * b.kld).std() / math.sqrt(max(1, len(a.kld) - 1))
    return value, float(spread / b.mean)


def _log_softmax(logits: F32Array) -> F32Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    sums = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    return np.asarray(shifted - np.log(sums).astype(np.float32))
