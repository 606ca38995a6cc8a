"""``Sampler``: from logits to the next token, in the order of llama.cpp's default sampler chain.

Repetition penalty, top-k, top-p, min-p, temperature, then one random draw. At temperature 0: repetition penalty, then
greedy.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.arrays import F64Array
from sprat.errors import BackendError, InputError

__all__ = ["Sampler", "SamplingParams"]

_Floats = npt.NDArray[np.float32 | np.float64]
_Ids = npt.NDArray[np.intp]
_PENALTY_WINDOW = 64  # llama.cpp's repeat_last_n
_GROUP = 64  # logits of which only the maximum is compared while a threshold for the top k is found


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is sampled; the defaults are llama.cpp's.

    Raises:
        InputError: a value is out of its range; all such values are named.
    """

    temperature: float = 0.8  # 0: greedy
    top_k: int = 40  # 0: no limit
    top_p: float = 0.95  # 1: no limit
    min_p: float = 0.05  # 0: no limit
    repeat_penalty: float = 1.0  # 1: no penalty
    seed: int | None = None  # None: different in every run

    def __post_init__(self) -> None:
        rules = [
            ("temperature", _is_number(self.temperature) and self.temperature >= 0, "a finite number of at least 0"),
            ("top_k", _is_count(self.top_k), "an integer of at least 0 (0: no limit)"),
            ("top_p", _is_number(self.top_p) and 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", _is_number(self.min_p) and 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repeat_penalty", _is_number(self.repeat_penalty) and self.repeat_penalty > 0, "a finite number above 0"),
            ("seed", self.seed is None or _is_count(self.seed), "an integer of at least 0, or None"),
        ]
        problems = [
            f"{name} is {getattr(self, name)!r}, expected {expected}" for name, holds, expected in rules if not holds
        ]
        if problems:
            raise InputError(f"invalid sampling parameters: {'; '.join(problems)}")


class Sampler:
    """Samples tokens; with the same seed, the same logits give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._random = np.random.Generator(np.random.PCG64(params.seed))

    def sample(self, logits: npt.ArrayLike, history: Sequence[int] = ()) -> tuple[int, float]:
        """Sample the next token.

        Args:
            logits: ``(vocab_size,)``.
            history: the tokens so far, prompt included; the last 64 are penalized.

        Returns:
            The token id, and its natural log probability in the model's own distribution: log softmax of ``logits``,
            before penalty, truncation and temperature.

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
        ids, probabilities = self.distribution(raw, history)
        drawn = probabilities.cumsum().searchsorted(self._random.random(), side="right") if ids.size > 1 else 0
        token = int(ids[min(drawn, ids.size - 1)])  # rounding may leave the cumulative sum below 1
        return token, float(raw[token]) - top - math.log(np.exp(raw - top).sum())

    def distribution(self, logits: npt.ArrayLike, history: Sequence[int] = ()) -> tuple[_Ids, F64Array]:
        """The candidates that remain and their probabilities, most probable first; arguments as for :meth:`sample`."""
        penalized = self._penalize(_floats(logits), history)
        if self.params.temperature == 0:
            return np.array([penalized.argmax()]), np.ones(1)
        ids = _top_k(penalized, self.params.top_k)
        candidates = penalized[ids].astype(np.float64)
        candidates = candidates[: self._n_kept(candidates)]
        return ids[: candidates.size], _softmax(candidates / self.params.temperature)

    def _n_kept(self, logits: F64Array) -> int:
        """How many of the ``logits``, sorted in descending order, top-p and min-p keep; at least one."""
        count = logits.size
        if self.params.top_p < 1:
            count = min(count, 1 + int(np.searchsorted(_softmax(logits).cumsum(), self.params.top_p)))
        if self.params.min_p > 0:
            count = min(count, int(np.count_nonzero(logits >= logits[0] + math.log(self.params.min_p))))
        return count

    def _penalize(self, logits: _Floats, history: Sequence[int]) -> _Floats:
        penalty = self.params.repeat_penalty
        if penalty == 1 or not history:
            return logits
        seen = np.unique(np.asarray(history[-_PENALTY_WINDOW:], dtype=np.intp))
        out = logits.astype(np.float64)
        out[seen] = np.where(out[seen] <= 0, out[seen] * penalty, out[seen] / penalty)
        return out


def _floats(logits: npt.ArrayLike) -> _Floats:
    """Float32 without a copy (a vocabulary has up to 150,000 logits), anything else as float64."""
    array = np.asarray(logits)
    return array if array.dtype == np.float32 else array.astype(np.float64)


def _top_k(logits: _Floats, count: int) -> _Ids:
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


def _softmax(logits: F64Array) -> F64Array:
    exps: F64Array = np.exp(logits - logits.max())
    return exps / float(exps.sum())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
