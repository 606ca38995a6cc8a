"""Files read by stock llama.cpp as llama-perplexity reads them: for ``benchmarks/quality.py``.

Text is one stream of tokens in windows; each window is read into an empty context, and the second half of its tokens is
scored against the logits of the unquantized file, in the same library, with its own int8 activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sprat.arrays import F32Array, F64Array, I32Array
from sprat.runtime.backends.llamacpp import LlamaCppBackend

__all__ = ["stock_divergences"]

_WINDOW = 256


def stock_divergences(
    unquantized: Path, candidates: Mapping[str, Path], sequences: Sequence[I32Array], n_windows: int
) -> dict[str, F64Array]:
    """KL divergence of each scored token in nats, by file.

    Args:
        unquantized: the base.
        candidates: name -> file.
        sequences: token ids.
        n_windows: windows to read.
    """
    stream = np.concatenate(sequences)
    starts = range(0, min(len(stream), n_windows * _WINDOW) - _WINDOW + 1, _WINDOW)
    windows = [stream[start : start + _WINDOW].tolist() for start in starts]
    base = _log_probabilities(unquantized, windows)
    found = {}
    for name, path in candidates.items():
        divergences = []
        for ours, theirs in zip(_log_probabilities(path, windows), base, strict=True):
            divergences.append((np.exp(theirs) * (theirs - ours)).sum(axis=1, dtype=np.float64))
        found[name] = np.concatenate(divergences)
    return found


def _log_probabilities(path: Path, windows: Sequence[list[int]]) -> list[F32Array]:
    backend = LlamaCppBackend(path, n_threads=1, use_extra_bufts=False)
    found = []
    for window in windows:
        stream = backend.new_stream(_WINDOW)
        logits = stream.forward_all(window)[_WINDOW // 2 - 1 : -1].astype(np.float64)
        stream.close()
        shifted = logits - logits.max(axis=1, keepdims=True)
        found.append((shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32))
    backend.close()
    return found
