"""``Sampler``: from logits to the next token, in the order of llama.cpp's default sampler chain.

Logit bias, penalties, top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature, then one random draw. At temperature
0: bias and penalties, then greedy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sprat.arrays import F64Array
from sprat.errors import BackendError
from sprat.runtime.generate.sampling_params import SamplingParams
from sprat.runtime.generate.truncation import n_after_xtc, n_kept, sigma_candidates, softmax, top_k, typical

__all__ = ["Sampler", "SamplingParams", "log_probability", "top_logprobs"]

_Floats = npt.NDArray[np.float32 | np.float64]
_Ids = npt.NDArray[np.intp]
_PENALTY_WINDOW = 64  # llama.cpp's repeat_last_n


class Sampler:
    """Samples tokens; with the same seed, the same logits give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._biased = np.array(list(params.logit_bias), dtype=np.intp)
        self._bias = np.array(list(params.logit_bias.values()), dtype=np.float64)

    @functools.cached_property
    def _random(self) -> np.random.Generator:
        """Made by the first draw: NumPy imports the module then, and a greedy answer draws nothing."""
        return np.random.Generator(np.random.PCG64(self.params.seed))

    def sample(
        self, logits: npt.ArrayLike, history: Sequence[int] = (), allowed: _Ids | None = None
    ) -> tuple[int, float]:
        """Sample the next token.

        Args:
            logits: ``(vocab_size,)``.
            history: the tokens so far, prompt included; the last 64 are penalized.
            allowed: ids that may be sampled, in ascending order; ``None`` for all.

        Returns:
            The token id, and its natural log probability in the model's own distribution: log softmax of ``logits``,
            before bias, penalties, truncation and temperature.

        Raises:
            BackendError: the maximum of the logits is NaN or infinite.
        """
        raw = _floats(logits)
        top = float(raw.max())
        if not math.isfinite(top):
            raise BackendError(
                f"the largest logit is {top}, expected a finite value: the model's weights are damaged; "
                "find the tensor with `sprat inspect --check`"
            )
        ids, probabilities = self.distribution(raw, history, allowed)
        drawn = probabilities.cumsum().searchsorted(self._random.random(), side="right") if ids.size > 1 else 0
        token = int(ids[min(drawn, ids.size - 1)])  # rounding may leave the cumulative sum below 1
        return token, log_probability(raw, token)

    def distribution(
        self, logits: npt.ArrayLike, history: Sequence[int] = (), allowed: _Ids | None = None
    ) -> tuple[_Ids, F64Array]:
        """The candidates that remain and their probabilities, most probable first; arguments as for :meth:`sample`."""
        params = self.params
        penalized = self._penalize(self._add_bias(_floats(logits)), history)
        if allowed is not None:
            penalized = penalized[allowed]
        if params.temperature == 0:
            return _of(allowed, np.array([penalized.argmax()])), np.ones(1)
        ids = top_k(penalized, params.top_k)
        if params.top_n_sigma > 0:
            ids = ids[sigma_candidates(penalized, ids, params.top_n_sigma)]
        candidates = penalized[ids].astype(np.float64)
        if params.typical_p < 1:
            kept = typical(candidates, params.typical_p)
            ids, candidates = ids[kept], candidates[kept]
        count = n_kept(candidates, params.top_p, params.min_p)
        first = self._n_excluded(candidates[:count])
        ids, candidates = ids[first:count], candidates[first:count]
        return _of(allowed, ids), softmax(candidates / params.temperature)

    def _n_excluded(self, logits: F64Array) -> int:
        """Number of the most probable candidates that XTC removes in this draw."""
        if self.params.xtc_probability == 0 or self._random.random() > self.params.xtc_probability:
            return 0
        return n_after_xtc(logits, self.params.xtc_threshold)

    def _add_bias(self, logits: _Floats) -> _Floats:
        if not self._biased.size:
            return logits
        out = logits.astype(np.float64)
        out[self._biased] += self._bias
        return out

    def _penalize(self, logits: _Floats, history: Sequence[int]) -> _Floats:
        params = self.params
        if (params.repeat_penalty, params.presence_penalty, params.frequency_penalty) == (1, 0, 0) or not history:
            return logits
        seen, counts = np.unique(np.asarray(history[-_PENALTY_WINDOW:], dtype=np.intp), return_counts=True)
        out = logits.astype(np.float64)
        penalized = np.where(out[seen] <= 0, out[seen] * params.repeat_penalty, out[seen] / params.repeat_penalty)
        out[seen] = penalized - counts * params.frequency_penalty - params.presence_penalty
        return out


def log_probability(logits: npt.ArrayLike, token_id: int) -> float:
    """Natural log probability of a token: log softmax of ``logits`` ``(vocab_size,)``, of which one is finite."""
    raw = _floats(logits)
    top, log_sum = _normalizer(raw)
    return float(raw[token_id]) - top - log_sum


def top_logprobs(logits: npt.ArrayLike, count: int) -> tuple[tuple[int, float], ...]:
    """The ``count`` most probable tokens and their log probabilities, the most probable first."""
    raw = _floats(logits)
    top, log_sum = _normalizer(raw)
    return tuple((int(token), float(raw[token]) - top - log_sum) for token in top_k(raw, count))


def _normalizer(logits: _Floats) -> tuple[float, float]:
    """The largest logit, and the logarithm of the sum of exponentials relative to it."""
    top = logits.max()
    return float(top), math.log(np.exp(logits - top).sum())


def _of(allowed: _Ids | None, ids: _Ids) -> _Ids:
    return ids if allowed is None else allowed[ids]


def _floats(logits: npt.ArrayLike) -> _Floats:
    """Float32 without a copy (a vocabulary has up to 150,000 logits), anything else as float64."""
    array = np.asarray(logits)
    return array if array.dtype == np.float32 else array.astype(np.float64)
