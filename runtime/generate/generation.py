"""The generation of one answer: prefill in chunks, then decode token by token, until a stop condition holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from sprat.arrays import F32Array
from sprat.errors import SessionBusyError
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.runtime.generate.guide import Guide, ids_of
from sprat.runtime.generate.mask_ahead import MaskAhead
from sprat.runtime.generate.options import StopConditions
from sprat.runtime.generate.results import FinishReason, Piece, PromptTokensDetails, Summary, Timings, Usage
from sprat.runtime.generate.sampling import log_probability, top_logprobs
from sprat.runtime.generate.speculate.speculator import Speculation, Speculator
from sprat.runtime.generate.stop import StopScanner
from sprat.runtime.generate.transcript import Transcript
from sprat.runtime.interrupt import Interrupt
from sprat.runtime.memory.footprint import DEFAULT_BATCH

__all__ = [
    "Generation",
    "PrefillSpeed",
    "TextDecoder",
    "TokenSampler",
]

_CONTEXT_OF_ANSWER = 3  # tokens of the prompt that are noted with an answer, so that its first ones can be guessed
_MIN_CHUNK = 16  # tokens: the shortest chunk that a deadline leaves, and that a speed is taken from


class PrefillSpeed(msgspec.Struct):
    """The speed of an engine's last chunk of a prompt: how many tokens fit before a deadline."""

    tokens_per_s: float = 0.0  # 0 before the first chunk

    def update(self, n_tokens: int, seconds: float) -> None:
        """Take the speed of a chunk that is long enough to have one."""
        if n_tokens >= _MIN_CHUNK and seconds > 0:
            self.tokens_per_s = n_tokens / seconds

    def tokens_within(self, seconds: float, batch: int) -> int:
        """Tokens of a chunk that ends within ``seconds``: at most ``batch``, which is also the first guess."""
        if not self.tokens_per_s:
            return batch
        return min(batch, max(_MIN_CHUNK, int(seconds * self.tokens_per_s)))


class TokenSampler(Protocol):
    """Chooses the next token; implemented by :class:`sprat.runtime.generate.sampling.Sampler`."""

    def sample(
        self, logits: F32Array, history: Sequence[int], allowed: npt.NDArray[np.intp] | None, /
    ) -> tuple[int, float]:
        """The token sampled from ``logits (vocab_size,)`` after ``history``, and its log probability.

        ``allowed`` are the ids that may be sampled, in ascending order; ``None`` for all.
        """


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
    :meth:`cancel` may be called from any thread, also during prefill; everything else from one thread at a time.

    Args:
        transcript: the stream to continue; it holds a proper prefix of ``prompt``.
        prompt: token ids of the whole prompt.
        sampler: chooses each token.
        decoder: turns tokens into text.
        eog_ids: tokens that end generation.
        stop_conditions: when else generation ends.
        guide: restricts the tokens of the answer.
        n_alternatives: most probable tokens reported beside each.
        batch: prompt tokens of one forward pass; fewer if the last chunk's speed says that the timeout leaves no time.
        speed: of the engine's last chunk.
        speculation: guesses tokens; ``None`` for one pass for each.
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
        eog_ids: Collection[int],
        stop_conditions: StopConditions,
        guide: Guide | None = None,
        n_alternatives: int = 0,
        batch: int = DEFAULT_BATCH,
        speed: PrefillSpeed | None = None,
        speculation: Speculation | None = None,
        on_prefill: ReportProgress = no_progress,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._transcript = transcript
        self._prompt = prompt
        self._sampler = sampler
        self._decoder = decoder
        self._eog_ids = eog_ids
        self._guide = None if guide is None else MaskAhead(guide)
        self._n_alternatives = n_alternatives
        self._batch = batch
        self._speed = speed or PrefillSpeed()
        self._speculation = speculation
        self._speculator: Speculator | None = None
        self._on_prefill = on_prefill
        self._on_end = on_end
        self._stop_scanner = StopScanner(stop_conditions.stop)
        self._max_tokens, timeout = stop_conditions.max_tokens, stop_conditions.timeout
        self._min_tokens = stop_conditions.min_tokens
        self._interrupt = Interrupt(None if timeout is None else time.monotonic() + timeout)
        self._busy = threading.Lock()
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
        with self._alone():
            return next(self._pieces)

    def cancel(self) -> None:
        """End the answer in the middle of the current forward pass; may be called from any thread.

        The tokens of earlier passes stay in the session's cache. Text that is held back as a possible stop string or
        incomplete character is dropped.
        """
        self._interrupt.cancel()

    def close(self) -> None:
        """End the answer now, from the thread that iterates; the tokens so far stay in the session's cache.

        Raises:
            SessionBusyError: another thread, or a callback, is inside a forward pass; :meth:`cancel` ends it.
        """
        with self._alone():
            if self._summary is None:
                self._pieces.close()
            if self._summary is None:  # never started, so the generator's ``finally`` did not run
                self._finish()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Admit one call at a time: the passes of an answer follow each other."""
        if not self._busy.acquire(blocking=False):
            raise SessionBusyError(
                "this answer is being generated by another thread or by the caller of this callback; use one session "
                "per thread (engine.session()), or end the answer with cancel(), which any thread may call"
            )
        try:
            yield
        finally:
            self._busy.release()

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
            self._transcript.remember()
            while not self._ended():
                with self._decode_clock:
                    piece = self._sample(logits)
                yield piece
                if not self._ended():
                    with self._decode_clock, self._interrupt:
                        logits = self._forward(piece.token_id)
            self._transcript.remember()
            if not self._interrupt.is_set:  # writing takes time
                self._transcript.write_shared()
        finally:
            self._finish()

    def _prefill(self) -> F32Array:
        """Process the prompt in chunks and return the logits after it; meaningless when interrupted."""
        logits = np.empty(0, np.float32)
        n_new = len(self._prompt) - self._n_cached
        while self._n_prefilled < n_new and not self._ended():
            start, before = self._transcript.n_past, self._prefill_clock.seconds
            chunk = self._prompt[start : start + self._chunk_size()]
            with self._prefill_clock, self._interrupt:
                logits = self._transcript.forward(chunk)
            self._n_prefilled = self._transcript.n_past - self._n_cached
            if self._transcript.n_past - start == len(chunk):
                self._speed.update(len(chunk), self._prefill_clock.seconds - before)
                self._on_prefill(Progress(self._n_prefilled, n_new, f"{self._n_prefilled} of {n_new} tokens"))
        return logits

    def _forward(self, token: int) -> F32Array:
        """Append a sampled token, and return the logits after it."""
        guide = None if self._guide is None or self._transcript.is_next_draft(token) else self._guide
        with nullcontext() if guide is None else guide.ahead():  # none where the logits of a draft are known
            if self._speculation is None:
                return self._transcript.forward([token])
            if self._speculator is None:
                forced = tuple if self._guide is None else self._guide.forced
                self._speculator = self._speculation.start(self._transcript, self._prompt, forced)
            n_left = self._transcript.capacity if self._max_tokens is None else self._max_tokens - self._n_decoded
            return self._speculator.forward(token, n_left - 1)

    def _chunk_size(self) -> int:
        """Tokens of the next chunk: what is computed before the deadline stays in the cache for the next answer."""
        deadline = self._interrupt.deadline
        if deadline is None:
            return self._batch
        return self._speed.tokens_within(deadline - time.monotonic(), self._batch)

    def _sample(self, logits: F32Array) -> Piece:
        """Sample a token, check the stop conditions, and release the text that cannot be part of a stop string."""
        token_id, logprob = self._next_token(logits)
        alternatives = top_logprobs(logits, self._n_alternatives) if self._n_alternatives else ()
        self._n_decoded += 1
        is_eog = token_id in self._eog_ids
        text = "" if is_eog else self._scan(token_id)
        if is_eog or self._stop_scanner.matched or (self._guide is not None and self._guide.is_complete):
            self._reason = FinishReason.STOP
        elif self._n_decoded == self._max_tokens or self._transcript.n_past == self._transcript.capacity:
            self._reason = FinishReason.LENGTH
        if self._ended():
            text += self._stop_scanner.feed(self._decoder.flush()) + self._stop_scanner.flush()
        self._texts.append(text)
        return Piece(text, token_id, logprob, alternatives)

    def _next_token(self, logits: F32Array) -> tuple[int, float]:
        """The next token and its log probability: sampled from what may come, or what the guide takes instead."""
        token_id, logprob = self._sampler.sample(logits, self._transcript.tokens, self._allowed(logits.size))
        taken = token_id if self._guide is None else self._guide.accept(token_id)
        return taken, logprob if taken == token_id else log_probability(logits, taken)

    def _allowed(self, vocab_size: int) -> npt.NDArray[np.intp] | None:
        """The ids that may come next; ``None`` for all."""
        mask = None if self._guide is None else self._guide.allowed()
        if self._n_decoded < self._min_tokens:
            mask = np.ones(vocab_size, np.bool_) if mask is None else mask
            ends = [token for token in self._eog_ids if token < vocab_size]
            if mask.sum() > mask[ends].sum():  # otherwise the guide allows nothing but an end
                mask[ends] = False
        return None if mask is None else ids_of(mask)

    def _scan(self, token_id: int) -> str:
        """The text that this token releases."""
        return self._stop_scanner.feed(self._decoder.feed(token_id), self._decoder.special_text(token_id))

    def _ended(self) -> bool:
        """Whether a stop condition, :meth:`cancel` or the timeout has ended the answer."""
        if self._reason is None and self._interrupt.is_set:
            self._reason = FinishReason.CANCELLED if self._interrupt.is_cancelled else FinishReason.TIMEOUT
        return self._reason is not None

    def _finish(self) -> None:
        if self._speculation is not None and self._speculator is not None:
            begin = max(0, len(self._prompt) - _CONTEXT_OF_ANSWER)
            self._speculation.finish(self._speculator, self._transcript.tokens[begin:])
        prompt_ms, predicted_ms = 1e3 * self._prefill_clock.seconds, 1e3 * self._decode_clock.seconds
        self._summary = Summary(
            finish_reason=self._reason or FinishReason.CANCELLED,  # closed by the caller, or the backend failed
            usage=Usage(
                prompt_tokens=len(self._prompt),
                completion_tokens=self._n_decoded,
                total_tokens=len(self._prompt) + self._n_decoded,
                prompt_tokens_details=PromptTokensDetails(cached_tokens=self._n_cached),
            ),
            timings=Timings(
                cache_n=self._n_cached,
                prompt_n=self._n_prefilled,
                prompt_ms=prompt_ms,
                prompt_per_second=_per_second(self._n_prefilled, prompt_ms),
                predicted_n=self._n_decoded,
                predicted_ms=predicted_ms,
                predicted_per_second=_per_second(self._n_decoded, predicted_ms),
                draft_n=self._speculator.n_drafts if self._speculator else 0,
                draft_n_accepted=self._speculator.n_right if self._speculator else 0,
            ),
        )
        self._on_end()


def _per_second(count: int, milliseconds: float) -> float:
    return 1e3 * count / milliseconds if milliseconds else 0.0
