"""The generation of one answer: prefill in chunks, then decode token by token, until a stop condition holds."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sprat.arrays import F32Array
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.runtime.generate.options import StopConditions
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

DEFAULT_BATCH = 256  # prompt tokens of one forward pass; cancel and timeout are checked between passes


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
    :meth:`sprat.runtime.generate.sampling.Sampler.sample`.
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
    """Timings under llama-server's names; time that the caller spends between two pieces is not counted."""

    cache_n: int  # prompt tokens reused from the cache
    prompt_n: int  # prompt tokens that were processed
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Finish reason, token counts and timings of an answer that has ended."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings


class TokenSampler(Protocol):
    """Chooses the next token; implemented by :class:`sprat.runtime.generate.sampling.Sampler`."""

    def sample(self, logits: F32Array, history: Sequence[int], /) -> tuple[int, float]:
        """The token sampled from ``logits (vocab_size,)`` after ``history``, and its log probability."""


class TextDecoder(Protocol):
    """Turns token ids into text without broken characters; implemented by the tokenizer's stream decoder."""

    def feed(self, token_id: int, /) -> str:
        """The characters that this token completes."""

    def special_text(self, token_id: int, /) -> str:
        """The text of a token that is not shown, such as ``<｜User｜>``; empty for any other."""

    def flush(self) -> str:
        """The rest: U+FFFD for an incomplete character, otherwise empty."""


class _Clock:
    """Seconds spent inside ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started


class Generation(Iterator[Piece]):
    """An iterator over the pieces of one answer; each piece is generated when it is requested.

    Iterate over it, or call :meth:`text` for the whole answer. ``summary`` is available once it has ended.
    :meth:`cancel` may be called from any thread, also during prefill.

    Args:
        transcript: the stream to continue; it holds a proper prefix of ``prompt``.
        prompt: token ids of the whole prompt.
        sampler: chooses each token.
        decoder: turns tokens into text.
        eog_ids: tokens that end generation.
        stop_conditions: when else generation ends.
        batch: prompt tokens of one forward pass.
        on_prefill: called after every chunk of the prompt, with progress in tokens.
        on_end: called once, when the answer has ended.

    Example:
        >>> generation = engine.generate("Once upon a time", max_tokens=20, temperature=0)
        >>> text = "".join(piece.text for piece in generation)
        >>> generation.summary.usage.completion_tokens
        20
    """

    def __init__(
        self,
        transcript: Transcript,
        prompt: Sequence[int],
        *,
        sampler: TokenSampler,
        decoder: TextDecoder,
        eog_ids: Container[int],
        stop_conditions: StopConditions,
        batch: int = DEFAULT_BATCH,
        on_prefill: ReportProgress = no_progress,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._transcript = transcript
        self._prompt = prompt
        self._sampler = sampler
        self._decoder = decoder
        self._eog_ids = eog_ids
        self._batch = batch
        self._on_prefill = on_prefill
        self._on_end = on_end
        self._stop_scanner = StopScanner(stop_conditions.stop)
        self._cancelled = threading.Event()
        self._max_tokens, timeout = stop_conditions.max_tokens, stop_conditions.timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._prefill_clock, self._decode_clock = _Clock(), _Clock()
        self._n_cached = transcript.n_past
        self._n_prefilled = self._n_decoded = 0
        self._reason: FinishReason | None = None
        self._texts: list[str] = []
        self._summary: Summary | None = None
        self._pieces = self._run()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    def cancel(self) -> None:
        """End the answer after the current forward pass; may be called from any thread.

        Text that is held back as a possible stop string or incomplete character is dropped.
        """
        self._cancelled.set()

    def close(self) -> None:
        """End the answer now, from the thread that iterates; the tokens so far stay in the session's cache."""
        if self._summary is None:
            self._pieces.close()
        if self._summary is None:  # never started, so the generator's ``finally`` did not run
            self._finish()

    def text(self) -> str:
        """Generate the rest, and return the text of the whole answer."""
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
                        logits = self._transcript.forward([piece.token_id])
        finally:
            self._finish()

    def _prefill(self) -> F32Array:
        """Process the prompt in chunks and return the logits after it; meaningless when interrupted."""
        logits = np.empty(0, np.float32)
        for start in range(self._n_cached, len(self._prompt), self._batch):
            if self._ended():
                break
            chunk = self._prompt[start : start + self._batch]
            with self._prefill_clock:
                logits = self._transcript.forward(chunk)
            self._n_prefilled += len(chunk)
            n_new = len(self._prompt) - self._n_cached
            self._on_prefill(Progress(self._n_prefilled, n_new, f"{self._n_prefilled} of {n_new} tokens"))
        return logits

    def _sample(self, logits: F32Array) -> Piece:
        """Sample a token, check the stop conditions, and release the text that cannot be part of a stop string."""
        token_id, logprob = self._sampler.sample(logits, self._transcript.tokens)
        self._n_decoded += 1
        is_eog = token_id in self._eog_ids
        text = "" if is_eog else self._scan(token_id)
        if is_eog or self._stop_scanner.matched:
            self._reason = FinishReason.STOP
        elif self._n_decoded == self._max_tokens or self._transcript.n_past == self._transcript.capacity:
            self._reason = FinishReason.LENGTH
        if self._ended():
            text += self._stop_scanner.feed(self._decoder.flush()) + self._stop_scanner.flush()
        self._texts.append(text)
        return Piece(text, token_id, logprob)

    def _scan(self, token_id: int) -> str:
        """The text that this token releases."""
        return self._stop_scanner.feed(self._decoder.feed(token_id), self._decoder.special_text(token_id))

    def _ended(self) -> bool:
        """Whether a stop condition, :meth:`cancel` or the timeout has ended the answer."""
        if self._reason is None and self._cancelled.is_set():
            self._reason = FinishReason.CANCELLED
        if self._reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self._reason = FinishReason.TIMEOUT
        return self._reason is not None

    def _finish(self) -> None:
        prompt_ms, predicted_ms = 1e3 * self._prefill_clock.seconds, 1e3 * self._decode_clock.seconds
        self._summary = Summary(
            finish_reason=self._reason or FinishReason.CANCELLED,  # closed by the caller, or the backend failed
            usage=Usage(
                prompt_tokens=len(self._prompt),
                completion_tokens=self._n_decoded,
                total_tokens=len(self._prompt) + self._n_decoded,
            ),
            timings=Timings(
                cache_n=self._n_cached,
                prompt_n=self._n_prefilled,
                prompt_ms=prompt_ms,
                prompt_per_second=_per_second(self._n_prefilled, prompt_ms),
                predicted_n=self._n_decoded,
                predicted_ms=predicted_ms,
                predicted_per_second=_per_second(self._n_decoded, predicted_ms),
            ),
        )
        self._on_end()


def _per_second(count: int, milliseconds: float) -> float:
    return 1e3 * count / milliseconds if milliseconds else 0.0
