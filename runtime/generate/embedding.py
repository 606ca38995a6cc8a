"""Embeddings of text: the mean of the final hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.arrays import F64Array
from sprat.errors import BackendError
from sprat.runtime.backends.protocol import HiddenStates, TokenStream

__all__ = ["mean_pooled"]


def mean_pooled(stream: TokenStream, tokens: Sequence[int], batch: int) -> F64Array:
    """The mean over ``tokens`` of the hidden states after the final norm: ``(hidden_size,)``.

    Args:
        stream: an empty stream with room for the tokens.
        tokens: at least one token id.
        batch: tokens of one forward pass.

    Raises:
        BackendError: the backend gives logits only, or the hidden states are NaN or infinite.
    """
    if not isinstance(stream, HiddenStates):
        raise BackendError(
            "this backend computes logits only, expected hidden states for embeddings; "
            "load the model with backend='native' or 'reference'"
        )
    chunks = [tokens[start : start + batch] for start in range(0, len(tokens), batch)]
    sums = [stream.hidden_states(chunk).sum(axis=0, dtype=np.float64) for chunk in chunks]
    mean: F64Array = np.sum(sums, axis=0) / len(tokens)
    if not np.isfinite(mean).all():
        raise BackendError(
            "the hidden states are NaN or infinite: the model's weights are damaged; see sprat inspect --check"
        )
    return mean
