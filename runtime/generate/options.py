"""What a caller may ask of one answer: how to sample, when to stop. The keywords of every ``generate`` and ``chat``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from sprat.errors import InputError
from sprat.progress import ReportProgress, no_progress
from sprat.runtime.generate.sampling import SamplingParams

__all__ = ["GenerateOptions", "Limits", "split_options"]


class GenerateOptions(TypedDict, total=False):
    """The keywords, for type checkers; :class:`SamplingParams` and :class:`Limits` document and check them."""

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
class Limits:
    """When an answer ends, if the model does not end it.

    Attributes:
        max_tokens: sampled tokens at most; ``None`` for as many as the context holds.
        stop: text that ends the answer and is not part of it.
        timeout: seconds from the call on; checked after every token and every chunk of the prompt.
        on_prefill: called after every chunk of the prompt, in tokens.
    """

    max_tokens: int | None = None
    stop: Sequence[str] = ()
    timeout: float | None = None
    on_prefill: ReportProgress = no_progress

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        rules = [
            (
                "max_tokens",
                self.max_tokens is None or self.max_tokens >= 1,
                "at least 1, or None: what the context holds",
            ),
            ("stop", all(self.stop), "strings that are not empty"),
            ("timeout", self.timeout is None or self.timeout > 0, "seconds above 0, or None"),
        ]
        wrong = [
            f"{name} is {getattr(self, name)!r}, expected {expected}" for name, holds, expected in rules if not holds
        ]
        if wrong:
            raise InputError(f"These limits cannot be kept: {'; '.join(wrong)}.")


_LIMITS = frozenset(Limits.__dataclass_fields__)


def split_options(options: GenerateOptions) -> tuple[SamplingParams, Limits]:
    """Sort the keywords to the two records that own them.

    Raises:
        InputError: a value is out of its range.
        TypeError: no such keyword.
    """
    limits = {name: value for name, value in options.items() if name in _LIMITS}
    sampling = {name: value for name, value in options.items() if name not in _LIMITS}
    return SamplingParams(**sampling), Limits(**limits)  # type: ignore[arg-type]  # the TypedDict states the same types
