"""Results of a generation: its tokens one by one, and counts and timings at the end."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["FinishReason", "Piece", "PromptTokensDetails", "Summary", "Timings", "Usage"]


class FinishReason(enum.StrEnum):
    """Why generation ended. The first two are OpenAI's."""

    STOP = "stop"  # an end-of-generation token, or a stop string
    LENGTH = "length"  # max_tokens reached, or the context is full
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Piece:
    """One generated token.

    ``text`` is empty while a character is incomplete or a stop string may have begun, and for an end token.
    ``logprob`` is the natural logarithm of the token's probability; see
    :meth:`sprat.runtime.generate.sampling.Sampler.sample`. ``top_logprobs`` has the most probable tokens in its place,
    as many as the option of this name says: token ids and log probabilities.
    """

    text: str
    token_id: int
    logprob: float
    top_logprobs: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTokensDetails:
    """``cached_tokens``: prompt tokens whose KV entries were there before; OpenAI's name."""

    cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts, under OpenAI's names. The end token counts as a completion token."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Timings under llama-server's names; time that the caller spends between two pieces is not counted."""

    cache_n: int  # prompt tokens reused from the cache
    prompt_n: int  # prompt tokens that were processed
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float
    draft_n: int  # tokens that were guessed and checked (speculative decoding)
    draft_n_accepted: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Finish reason, token counts and timings of an answer that has ended."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
