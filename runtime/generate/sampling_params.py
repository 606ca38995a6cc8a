"""``SamplingParams``: how the next token is sampled, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sprat.errors import InputError

__all__ = ["SamplingParams"]

# Logits are float32. With factors and summands of at most this magnitude, and quotients by at least its inverse,
# neither they nor their variance overflows in float64.
_LARGEST = 1e30
_NUMBER = f"between -{_LARGEST:g} and {_LARGEST:g}"
_POSITIVE = f"between {1 / _LARGEST:g} and {_LARGEST:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling parameters; the defaults are llama.cpp's.

    The penalties count the last 64 tokens, prompt included.

    Attributes:
        temperature: 0 for greedy.
        top_k: sample from the k most probable tokens; 0: no limit.
        top_p: sample from the most probable tokens whose probabilities add up to this; 1: no limit.
        min_p: leave out tokens below this share of the highest probability; 0: no limit.
        typical_p: locally typical sampling; 1: off.
        top_n_sigma: leave out tokens more than this many standard deviations below the largest logit; 0: off.
        xtc_probability: of leaving out all but the last of the tokens above ``xtc_threshold``; 0: off.
        xtc_threshold: probability from which a token is a top choice of XTC; above 0.5: off.
        repeat_penalty: divides positive logits of seen tokens, and multiplies negative ones; 1: none.
        presence_penalty: subtracted from the logits of seen tokens; OpenAI's range is -2 to 2.
        frequency_penalty: subtracted from the logits of seen tokens, once for each time.
        logit_bias: token id -> what is added to its logit; -100 and 100 ban and force a token, in effect.
        seed: the same seed gives the same tokens; ``None``: different in every run.

    Raises:
        InputError: a value is out of its range; all such values are named.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)!r:.200}, expected {expected}"
            for name, holds, expected in self._rules()
            if not holds
        ]
        if problems:
            raise InputError(f"invalid sampling parameters: {'; '.join(problems)}")
        # OpenAI's keys are text, since JSON has no others
        object.__setattr__(self, "logit_bias", {int(token): float(bias) for token, bias in self.logit_bias.items()})

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """Name of a field, whether its value is right, and what is expected."""
        for name in ("temperature", "top_n_sigma"):
            value = getattr(self, name)
            yield name, _is_number(value) and (value == 0 or _is_positive(value)), f"0, or {_POSITIVE}"
        yield "top_k", _is_count(self.top_k), "an integer of at least 0 (0: no limit)"
        for name in ("top_p", "typical_p"):
            value = getattr(self, name)
            yield name, _is_number(value) and 0 < value <= 1, "above 0 and at most 1"
        for name in ("min_p", "xtc_probability", "xtc_threshold"):
            value = getattr(self, name)
            yield name, _is_number(value) and 0 <= value <= 1, "between 0 and 1"
        yield "repeat_penalty", _is_positive(self.repeat_penalty), _POSITIVE
        for name in ("presence_penalty", "frequency_penalty"):
            yield name, _is_number(getattr(self, name)), _NUMBER
        yield "logit_bias", _is_bias(self.logit_bias), f"a dict of token ids and numbers, each {_NUMBER}"
        yield "seed", self.seed is None or _is_count(self.seed), "an integer of at least 0, or None"


def _is_bias(value: object) -> bool:
    return isinstance(value, Mapping) and all(_is_id(key) and _is_number(bias) for key, bias in value.items())


def _is_id(key: Any) -> bool:
    return _is_count(key) or (isinstance(key, str) and key.isascii() and key.isdigit())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value >= 1 / _LARGEST


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
