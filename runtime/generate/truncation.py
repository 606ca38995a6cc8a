"""Truncation of the candidates before sampling: top-k, top-n-sigma, typical, top-p, min-p and XTC.

The definitions are llama.cpp's (llama-sampler.cpp). Logits are sorted in descending order unless stated otherwise.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sprat.arrays import F64Array

__all__ = ["n_after_xtc", "n_kept", "sigma_candidates", "softmax", "top_k", "typical"]

_Floats = npt.NDArray[np.float32 | np.float64]
_Ids = npt.NDArray[np.intp]
_Mask = npt.NDArray[np.bool_]
_GROUP = 64  # logits of which only the maximum is compared while a threshold for the top k is found
_MAX_XTC_THRESHOLD = 0.5  # above it, at most one token is that probable


def softmax(logits: F64Array) -> F64Array:
    """Probabilities of ``logits`` in any order."""
    exps: F64Array = np.exp(logits - logits.max())
    return exps / float(exps.sum())


def top_k(logits: _Floats, count: int) -> _Ids:
    """Ids of the ``count`` largest logits (0: of all) in descending order; only those are sorted."""
    if not 0 < count < logits.size:
        return np.argsort(-logits, kind="stable")
    ids = np.flatnonzero(logits >= _threshold(logits, count))
    return ids[np.argsort(-logits[ids], kind="stable")][:count]


def _threshold(logits: _Floats, count: int) -> float:
    """A value that ``count`` logits, and few more, are greater than or equal to.

    It is the ``count``-th largest of the group maxima. Partitioning those is faster than partitioning all logits.
    """
    n_groups = logits.size // _GROUP
    if n_groups > count:
        logits = logits[: n_groups * _GROUP].reshape(_GROUP, n_groups).max(axis=0)
    return float(np.partition(logits, -count)[-count])


def sigma_candidates(logits: _Floats, ids: _Ids, n: float) -> _Mask:
    """Top-n-sigma: which ``ids`` are within ``n`` standard deviations of all ``logits`` from the largest.

    Source: Tang et al., "Top-nσ: Not All Logits Are You Need" (2024). Masked logits (-inf) do not count.
    """
    finite = logits[np.isfinite(logits)].astype(np.float64)
    kept: _Mask = logits[ids] >= finite.max() - n * float(finite.std())
    return kept


def typical(logits: F64Array, p: float) -> _Mask:
    """Locally typical sampling: the tokens whose surprise is nearest to the entropy, until they have probability ``p``.

    Source: Meister et al., "Locally Typical Sampling" (2022).
    """
    probabilities = softmax(logits)
    surprise = -np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    order = np.argsort(np.abs(surprise - float((probabilities * surprise).sum())), kind="stable")
    count = 1 + int(np.searchsorted(probabilities[order].cumsum(), p, side="right"))
    kept = np.zeros(logits.size, bool)
    kept[order[:count]] = True
    return kept


def n_kept(logits: F64Array, top_p: float, min_p: float) -> int:
    """Number of candidates that top-p and min-p keep; at least one."""
    count = logits.size
    if top_p < 1:
        count = min(count, 1 + int(np.searchsorted(softmax(logits).cumsum(), top_p)))
    if min_p > 0:
        count = min(count, int(np.count_nonzero(logits >= logits[0] + math.log(min_p))))
    return count


def n_after_xtc(logits: F64Array, threshold: float) -> int:
    """XTC, "exclude top choices": how many candidates to leave out, so that the last of those above it comes first."""
    if threshold > _MAX_XTC_THRESHOLD or logits.size <= 1:
        return 0
    return max(0, int(np.count_nonzero(softmax(logits) >= threshold)) - 1)
