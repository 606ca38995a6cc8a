"""One answer while it is made: prefill in chunks, then token by token, until something ends it."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sprat.arrays import F32Array
from sprat.progress import Progress
from sprat.runtime.generate.options import Limits
from sprat.runtime.generate.stop import StopScanner
from sprat.runtime.generate.transcript import Transcript

__all__ = [
    "DEFAULT_BATCH",
    "FinishReason",
    "Generation",
    "Piece",
    "Summary",
    "TextDecoder",
    "Timings",
    "TokenSampler",
    "Usage",
]

DEFAULT_BATCH = 256  # tokens of a prompt in one pass: between two looks at cancel and timeout


class FinishReason(enum.StrEnum):
    """What ended an answer. The first two are OpenAI's."""

    STOP = "stop"  # the model's own end token, or a stop string
    LENGTH = "length"  # max_tokens, or a full context
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Piece:
    """One sampled token.

    ``text`` is empty while a character is incomplete or a stop string may be beginning, and for the end token.
    ``logprob`` is the natural logarithm of the token's probability as
    :class:`sprat.runtime.generate.sampling.Sampler` reports it.
    """

    text: str
    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts, under OpenAI's names. The end token counts as a completion token."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time went, in llama-server's spelling; what the caller does between two pieces is not counted."""

    cache_n: int  # prompt tokens that were in the cache already
    prompt_n: int  # prompt tokens that were processed
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What can be said once an answer has ended."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings


class TokenSampler(Protocol):
    """Chooses the next token; :class:`sprat.runtime.generate.sampling.Sampler` is one."""

    def sample(self, logits: F32Array, history: Sequence[int], /) -> tuple[int, float]:
        """The token chosen from ``(vocab_size,)`` logits, and its log probability."""


class TextDecoder(Protocol):
    """Turns token ids into text without broken characters; the tokenizer's stream decoder is one."""

    def feed(self, token_id: int, /) -> str:
        """The characters that this token completes."""

    def flush(self) -> str:
        """What is left of an incomplete character."""


class _Clock:
    """Seconds spent inside ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started


class Generation(Iterator[Piece]):
    """The pieces of one answer, made as they are asked for.

    Iterate over it, or call :meth:`text` for the whole answer; ``summary`` is there once it has ended. :meth:`cancel`
    may be called from any thread, also while the prompt is being processed.

    Example:
        >>> generation = engine.generate("Once upon a time", max_tokens=50)  # doctest: +SKIP
        >>> for piece in generation:  # doctest: +SKIP
        ...     print(piece.text, end="", flush=True)
        >>> generation.summary.timings.predicted_per_second  # doctest: +SKIP
    """

    def __init__(
        self,
        transcript: Transcript,
        prompt: Sequence[int],
        *,
        sampler: TokenSampler,
        decoder: TextDecoder,
        end_ids: Container[int],
        limits: Limits,
        batch: int = DEFAULT_BATCH,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._transcript = transcript
        self._prompt = prompt
        self._sampler = sampler
        self._decoder = decoder
        self._end_ids = end_ids
        self._limits = limits
        self._batch = batch
        self._on_end = on_end
        self._stops = StopScanner(limits.stop)
        self._cancelled = threading.Event()
        self._deadline = None if limits.timeout is None else time.monotonic() + limits.timeout
        self._prefill_clock, self._decode_clock = _Clock(), _Clock()
        self._n_cached = len(transcript.tokens)
        self._n_prefilled = self._n_sampled = 0
        self._reason: FinishReason | None = None
        self._texts: list[str] = []
        self._summary: Summary | None = None
        self._pieces = self._run()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    def cancel(self) -> None:
        """End the answer at the next token or chunk of the prompt, from any thread.

        Text that was held back, because a stop string or a character may have begun in it, is dropped.
        """
        self._cancelled.set()

    def close(self) -> None:
        """End the answer now, from the thread that iterates; what was made so far stays in the session's cache."""
        if self._summary is None:
            self._pieces.close()
        if self._summary is None:  # never started, so that the generator's own ending did not run
            self._finish()

    def text(self) -> str:
        """Make the rest, and return the whole text of the answer."""
        for _ in self:
            pass
        return "".join(self._texts)

    @property
    def summary(self) -> Summary:
        """Finish reason, token counts and timings.

        Raises:
            RuntimeError: the answer has not ended.
        """
        if self._summary is None:
            raise RuntimeError("the answer has not ended: iterate to its end, or call text() or close() first")
        return self._summary

    def _run(self) -> Generator[Piece]:
        try:
            logits = self._prefill()
            while not self._ended():
                with self._decode_clock:
                    piece = self._sample(logits)
                yield piece
                if not self._ended():
                    with self._decode_clock:
                        logits = self._transcript.extend([piece.token_id])
        finally:
            self._finish()

    def _prefill(self) -> F32Array:
        """Process the prompt in chunks and return the logits after it (nothing of use where that was interrupted)."""
        logits = np.empty(0, np.float32)
        for start in range(self._n_cached, len(self._prompt), self._batch):
            if self._ended():
                break
            chunk = self._prompt[start : start + self._batch]
            with self._prefill_clock:
                logits = self._transcript.extend(chunk)
            self._n_prefilled += len(chunk)
            n_new = len(self._prompt) - self._n_cached
            self._limits.on_prefill(Progress(self._n_prefilled, n_new, f"{self._n_prefilled} of {n_new} tokens"))
        return logits

    def _sample(self, logits: F32Array) -> Piece:
        """Choose a token, notice whether it ends the answer, and release the text that is sure by now."""
        token_id, logprob = self._sampler.sample(logits, self._transcript.tokens)
        self._n_sampled += 1
        text = "" if token_id in self._end_ids else self._stops.feed(self._decoder.feed(token_id))
        if token_id in self._end_ids or self._stops.stopped:
            self._reason = FinishReason.STOP
        elif self._n_sampled == self._limits.max_tokens or len(self._transcript.tokens) == self._transcript.capacity:
            self._reason = FinishReason.LENGTH
        if self._ended():
            text += self._stops.feed(self._decoder.flush()) + self._stops.flush()
        self._texts.append(text)
        return Piece(text, token_id, logprob)

    def _ended(self) -> bool:
        """Whether the answer is over, by itself or because somebody interrupted it."""
        if self._reason is None and self._cancelled.is_set():
            self._reason = FinishReason.CANCELLED
        if self._reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self._reason = FinishReason.TIMEOUT
        return self._reason is not None

    def _finish(self) -> None:
        prompt_ms, predicted_ms = 1e3 * self._prefill_clock.seconds, 1e3 * self._decode_clock.seconds
        self._summary = Summary(
            finish_reason=self._reason or FinishReason.CANCELLED,  # the caller closed us, or the backend failed
            usage=Usage(
                prompt_tokens=len(self._prompt),
                completion_tokens=self._n_sampled,
                total_tokens=len(self._prompt) + self._n_sampled,
            ),
            timings=Timings(
                cache_n=self._n_cached,
                prompt_n=self._n_prefilled,
                prompt_ms=prompt_ms,
                prompt_per_second=_per_second(self._n_prefilled, prompt_ms),
                predicted_n=self._n_sampled,
                predicted_ms=predicted_ms,
                predicted_per_second=_per_second(self._n_sampled, predicted_ms),
            ),
        )
        self._on_end()


def _per_second(count: int, milliseconds: float) -> float:
    return 1e3 * count / milliseconds if milliseconds else 0.0
