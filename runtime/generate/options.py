"""The options of one answer: how to sample and when to stop. The keywords of every ``generate`` and ``chat``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, TypedDict

from sprat.errors import InputError
from sprat.keywords import check_known
from sprat.progress import ReportProgress
from sprat.runtime.generate.sampling import SamplingParams
from sprat.runtime.generate.sampling_defaults import SamplingDefaults

__all__ = ["AnswerRules", "GenerateOptions", "StopConditions", "rules_of", "split_options"]


class GenerateOptions(TypedDict, total=False):
    """The keywords, for type checkers.

    :class:`SamplingParams`, :class:`StopConditions` and :class:`AnswerRules` document and check them. ``on_prefill`` is
    called after every chunk of the prompt, with progress in tokens.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    top_n_sigma: float
    xtc_probability: float
    xtc_threshold: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int | None
    max_tokens: int | None
    min_tokens: int
    stop: str | Sequence[str]
    timeout: float | None
    response_format: Mapping[str, Any] | None
    close_json: bool
    max_thinking_tokens: int | None
    top_logprobs: int
    on_prefill: ReportProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class StopConditions:
    """When generation ends, if the model does not end it.

    Attributes:
        max_tokens: maximum number of generated tokens; ``None`` for as many as fit into the context.
        min_tokens: end tokens are not sampled before so many tokens; stop strings and grammars end the answer earlier.
        stop: strings that end the answer; they are not part of it. They match text, and special tokens by their text
            (``"<｜User｜>"``), which are otherwise not shown.
        timeout: seconds from the call; at the deadline the forward pass that runs is ended, too.

    Raises:
        InputError: a value is out of its range; all such values are named.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    stop: Sequence[str] = ()
    timeout: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        rules = [
            (
                "max_tokens",
                self.max_tokens is None or (_is_a(Integral, self.max_tokens) and self.max_tokens >= 1),
                "an integer of at least 1, or None for as many as fit into the context",
            ),
            ("min_tokens", self._has_min_tokens(), "an integer of at least 0 and at most max_tokens"),
            ("stop", _are_strings(self.stop), f"a string or at most {_MAX_STOPS:,} strings, none of them empty"),
            (
                "timeout",
                self.timeout is None or (_is_a(Real, self.timeout) and 0 < self.timeout <= _MAX_TIMEOUT_S),
                f"seconds above 0 and at most {_MAX_TIMEOUT_S:.0e}, or None",
            ),
        ]
        _check(self, "stop conditions", rules)

    def _has_min_tokens(self) -> bool:
        """Whether ``min_tokens`` is a number that ``max_tokens`` leaves."""
        if not _is_a(Integral, self.min_tokens) or self.min_tokens < 0:
            return False
        return self.max_tokens is None or not _is_a(Integral, self.max_tokens) or self.min_tokens <= self.max_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRules:
    """Constraints of the answer, and what is reported of it.

    Attributes:
        response_format: what the answer must match: ``{"type": "json_schema", "json_schema": {"schema": ...}}``,
            ``{"type": "json_object"}``, ``{"type": "regex", "regex": ...}``, ``{"type": "grammar", "grammar": ...}``
            (Lark) or ``{"type": "choices", "choices": [...]}``; see docs/embedding.md. Reasoning is not bound.
        close_json: reserve tokens of ``max_tokens`` (or of the context) in which an answer of a ``response_format`` is
            finished, instead of being cut.
        max_thinking_tokens: tokens of reasoning, after which it is closed and the model answers; ``None``: no limit.
        top_logprobs: report so many most probable tokens beside each token, at most 20.

    Raises:
        InputError: a value is out of its range; all such values are named.
    """

    response_format: Mapping[str, Any] | None = None
    close_json: bool = False
    max_thinking_tokens: int | None = None
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        thinking, top = self.max_thinking_tokens, self.top_logprobs
        rules = [
            (
                "response_format",
                self.response_format is None or isinstance(self.response_format, Mapping),
                'a dict such as {"type": "json_object"}, or None',
            ),
            ("close_json", isinstance(self.close_json, bool), "True or False"),
            (
                "max_thinking_tokens",
                thinking is None or (_is_a(Integral, thinking) and thinking >= 0),
                "an integer of at least 0, or None",
            ),
            ("top_logprobs", _is_a(Integral, top) and 0 <= top <= _MAX_TOP_LOGPROBS, f"0 to {_MAX_TOP_LOGPROBS}"),
        ]
        _check(self, "rules of an answer", rules)


def _check(record: object, subject: str, rules: list[tuple[str, bool, str]]) -> None:
    """Check ``rules``: name of a field, whether its value is right, and what is expected."""
    problems = [
        f"{name} is {getattr(record, name)!r:.200}, expected {expected}" for name, holds, expected in rules if not holds
    ]
    if problems:
        raise InputError(f"invalid {subject}: {'; '.join(problems)}")


_MAX_TOP_LOGPROBS = 20  # OpenAI's
_MAX_TIMEOUT_S = 1e9  # 30 years; the clock counts in floats
_MAX_STOPS = 1000  # each is searched for in each piece


def _is_a(kind: type, value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _are_strings(stop: object) -> bool:
    if not isinstance(stop, list | tuple | set | frozenset) or len(stop) > _MAX_STOPS:
        return False
    return all(isinstance(text, str) and text for text in stop)


_STOP_CONDITIONS = frozenset(StopConditions.__dataclass_fields__)
_RULES = frozenset(AnswerRules.__dataclass_fields__)


def split_options(
    options: GenerateOptions, defaults: SamplingDefaults = MappingProxyType({})
) -> tuple[SamplingParams, StopConditions]:
    """Parameters of sampling and stopping; :func:`rules_of` has the rest, except ``on_prefill``.

    Args:
        options: the caller's keywords.
        defaults: the model's sampling parameters, for those that the caller does not give.

    Raises:
        InputError: a value is out of its range.
        TypeError: an unknown keyword; the message has the nearest ones.
    """
    check_known("generate()", options, GenerateOptions.__annotations__)
    on_prefill = options.get("on_prefill")
    if on_prefill is not None and not callable(on_prefill):
        raise InputError(f"on_prefill is {on_prefill!r}, expected a function that is called with the progress")
    stop = {name: value for name, value in options.items() if name in _STOP_CONDITIONS}
    others = {*_STOP_CONDITIONS, *_RULES, "on_prefill"}
    sampling = {name: value for name, value in options.items() if name not in others}
    return SamplingParams(**{**defaults, **sampling}), StopConditions(**stop)  # type: ignore[arg-type]  # the TypedDict has the types


def rules_of(options: GenerateOptions) -> AnswerRules:
    """The answer rules among the caller's keywords.

    Raises:
        InputError: a value is out of its range.
    """
    return AnswerRules(**{name: value for name, value in options.items() if name in _RULES})  # type: ignore[arg-type]
