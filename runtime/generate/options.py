"""The options of one answer: how to sample and when to stop. The keywords of every ``generate`` and ``chat``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import MappingProxyType
from typing import TypedDict

from sprat.errors import InputError
from sprat.keywords import check_known
from sprat.progress import ReportProgress
from sprat.runtime.generate.sampling import SamplingParams
from sprat.runtime.generate.sampling_defaults import SamplingDefaults

__all__ = ["GenerateOptions", "StopConditions", "split_options"]


class GenerateOptions(TypedDict, total=False):
    """The keywords, for type checkers.

    :class:`SamplingParams` and :class:`StopConditions` document and check them. ``on_prefill`` is called after every
    chunk of the prompt, with progress in tokens.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    seed: int | None
    max_tokens: int | None
    stop: str | Sequence[str]
    timeout: float | None
    on_prefill: ReportProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class StopConditions:
    """When generation ends, if the model does not end it.

    Attributes:
        max_tokens: maximum number of generated tokens; ``None`` for as many as fit into the context.
        stop: strings that end the answer; they are not part of it. They match text, and special tokens by their text
            (``"<｜User｜>"``), which are otherwise not shown.
        timeout: seconds from the call; at the deadline the forward pass that runs is ended, too.

    Raises:
        InputError: a value is out of its range; all such values are named.
    """

    max_tokens: int | None = None
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
            ("stop", _are_strings(self.stop), "a string or a sequence of strings, none of them empty"),
            (
                "timeout",
                self.timeout is None or (_is_a(Real, self.timeout) and 0 < self.timeout <= _MAX_TIMEOUT_S),
                f"seconds above 0 and at most {_MAX_TIMEOUT_S:.0e}, or None",
            ),
        ]
        problems = [
            f"{name} is {getattr(self, name)!r}, expected {expected}" for name, holds, expected in rules if not holds
        ]
        if problems:
            raise InputError(f"invalid stop conditions: {'; '.join(problems)}")


_MAX_TIMEOUT_S = 1e9  # 30 years; the clock counts in floats


def _is_a(kind: type, value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _are_strings(stop: object) -> bool:
    return isinstance(stop, list | tuple | set | frozenset) and all(isinstance(text, str) and text for text in stop)


_STOP_CONDITIONS = frozenset(StopConditions.__dataclass_fields__)


def split_options(
    options: GenerateOptions, defaults: SamplingDefaults = MappingProxyType({})
) -> tuple[SamplingParams, StopConditions]:
    """The two records that the keywords belong to; ``on_prefill`` is part of neither.

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
    sampling = {name: value for name, value in options.items() if name not in {*_STOP_CONDITIONS, "on_prefill"}}
    return SamplingParams(**{**defaults, **sampling}), StopConditions(**stop)  # type: ignore[arg-type]  # the TypedDict has the types
