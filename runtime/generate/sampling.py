"""``Sampler``: from logits to the next token, in the order of llama.cpp's default chain.

Repetition penalty, then (at temperature 0: the largest logit) top-k, top-p, min-p, temperature, one random number.
"""

from __future__ import annotations

import math
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
_GROUP = 64  # logits that are represented by their largest while the best ones are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen; the defaults are llama.cpp's.

    Raises:
        InputError: a number outside its range; all of them are named.
    """

    temperature: float = 0.8  # 0: always the likeliest token
    top_k: int = 40  # 0: no limit
    top_p: float = 0.95  # 1: no limit
    min_p: float = 0.05  # 0: no limit
    repeat_penalty: float = 1.0  # 1: none
    seed: int | None = None  # None: different at each run

    def __post_init__(self) -> None:
        rules = [
            ("temperature", _is_number(self.temperature) and self.temperature >= 0, "a finite number of at least 0"),
            ("top_k", _is_whole(self.top_k), "a whole number of at least 0 (0: no limit)"),
            ("top_p", _is_number(self.top_p) and 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", _is_number(self.min_p) and 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repeat_penalty", _is_number(self.repeat_penalty) and self.repeat_penalty > 0, "a finite number above 0"),
            ("seed", self.seed is None or _is_whole(self.seed), "a whole number of at least 0, or None"),
        ]
        wrong = [f"{name} is {getattr(self, name)!r}, expected {wanted}" for name, holds, wanted in rules if not holds]
        if wrong:
            raise InputError(f"Sampling cannot use this: {'; '.join(wrong)}.")


class Sampler:
    """A stream of choices; under a seed, the same logits give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._random = np.random.Generator(np.random.PCG64(params.seed))

    def sample(self, logits: npt.ArrayLike, history: Sequence[int] = ()) -> tuple[int, float]:
        """Choose the next token.

        Args:
            logits: ``(vocab_size,)``.
            history: Tokens so far, prompt included; the last 64 are penalized.

        Returns:
            The token id, and its natural log-probability in the model's own distribution: softmax of ``logits`` as
            they came, before penalty, truncation and temperature.

        Raises:
            BackendError: the logits hold NaN, or no finite number.
        """
        raw = _floats(logits)
        top = raw.max()
        if not np.isfinite(top):
            raise BackendError(
                "The model returned logits without a finite maximum (NaN or infinity): its weights are damaged; "
                "`sprat inspect --check` says where."
            )
        ids, probabilities = self.distribution(raw, history)
        chosen = probabilities.cumsum().searchsorted(self._random.random(), side="right") if ids.size > 1 else 0
        token = int(ids[min(chosen, ids.size - 1)])  # the sum of all may end a little below 1
        return token, float(raw[token]) - float(top) - math.log(np.exp(raw - top).sum())

    def distribution(self, logits: npt.ArrayLike, history: Sequence[int] = ()) -> tuple[_Ids, F64Array]:
        """Ids that may come next, likeliest first, and their probabilities; see :meth:`sample`."""
        penalized = self._penalize(_floats(logits), history)
        if self.params.temperature == 0:
            return np.array([penalized.argmax()]), np.ones(1)
        ids = _largest(penalized, self.params.top_k)
        kept = penalized[ids].astype(np.float64)
        kept = kept[: self._n_kept(kept)]
        return ids[: kept.size], _softmax(kept / self.params.temperature)

    def _n_kept(self, logits: F64Array) -> int:
        """How many of the likeliest logits, largest first, top-p and min-p leave; at least one."""
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
    """Float32 as it is, and anything else as float64: a vocabulary of 150,000 is worth not copying."""
    found = np.asarray(logits)
    return found if found.dtype == np.float32 else found.astype(np.float64)


def _largest(logits: _Floats, count: int) -> _Ids:
    """Ids of the ``count`` largest logits (0: of all), largest first; only those are sorted."""
    if not 0 < count < logits.size:
        return np.argsort(-logits, kind="stable")
    ids = np.flatnonzero(logits >= _bound(logits, count))
    return ids[np.argsort(-logits[ids], kind="stable")][:count]


def _bound(logits: _Floats, count: int) -> float:
    """A number that at least ``count`` logits reach, and few more.

    The largest of each group reach it, of ``count`` groups: those are partitioned faster than all logits.
    """
    n_groups = logits.size // _GROUP
    if n_groups > count:
        logits = logits[: n_groups * _GROUP].reshape(_GROUP, n_groups).max(axis=0)
    return float(np.partition(logits, -count)[-count])


def _softmax(logits: F64Array) -> F64Array:
    weights: F64Array = np.exp(logits - logits.max())
    return weights / float(weights.sum())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
