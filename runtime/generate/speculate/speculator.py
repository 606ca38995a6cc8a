"""``Speculator``: decodes one answer with drafts.

A draft is one guess without a distribution of its own. The acceptance rule of speculative sampling (arXiv 2211.17192,
2302.01318) then is: sample from the model's distribution, and the draft is accepted if it is what was sampled. So the
sampler sees the logits that it would see without drafts, in the same order, and makes the same random draws: the answer
has the same distribution, and apart from the rounding of longer passes the same tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sprat.arrays import F32Array
from sprat.runtime.generate.speculate.drafter import Drafter, Kind
from sprat.runtime.generate.speculate.pace import Pace
from sprat.runtime.generate.speculate.prompt_lookup import Forced, History
from sprat.runtime.generate.transcript import Transcript
from sprat.runtime.pass_queue import shares_turns

__all__ = ["Speculation", "Speculator"]

_NO_DRAFTS = ""
_NOTHING = Kind(_NO_DRAFTS, 0)


@dataclass(frozen=True, slots=True)
class Speculation:
    """Speculation state shared by all answers of an engine.

    Attributes:
        pace: its measurements.
        drafter: makes the drafter of one answer, from its prompt, the capacity of its stream, the history, and what
            gives the tokens that a grammar prescribes next.
        history: earlier answers.
    """

    pace: Pace
    drafter: Callable[[Sequence[int], int, History, Forced], Drafter]
    history: History = field(default_factory=History)

    def start(self, transcript: Transcript, prompt: Sequence[int], forced: Forced = tuple) -> Speculator:
        """The speculator of an answer to ``prompt``; ``forced`` gives what a grammar prescribes next."""
        return Speculator(transcript, self.drafter(prompt, transcript.capacity, self.history, forced), self.pace)

    def finish(self, answer: Speculator, tokens: Sequence[int]) -> None:
        """Free what an answer took, and note its ``tokens`` for later ones."""
        answer.close()
        self.history.add(tokens)


class Speculator:
    """The passes of one answer, with drafts where they pay.

    Beside other answers there are none: their tokens share passes, which read the weights once for all of them, and
    the seconds of a pass would count the wait for its turn.

    Args:
        transcript: holds the whole prompt.
        drafter: of the same prompt.
        pace: of the engine.

    Attributes:
        n_drafts: tokens that were guessed and checked.
        n_right: of them, those that became part of the answer.
    """

    def __init__(self, transcript: Transcript, drafter: Drafter, pace: Pace) -> None:
        self._transcript, self._drafter, self._pace = transcript, drafter, pace
        self.n_drafts = self.n_right = 0
        self._pending: tuple[Kind, int, int] | None = None  # kind, drafts and right drafts of the last pass

    def forward(self, token: int, n_left: int) -> F32Array:
        """Append ``token``, and return the logits after it, ``(vocab_size,)``.

        Args:
            token: the sampled token.
            n_left: tokens that the answer may have after it.
        """
        self._drafter.feed(token)
        if self._transcript.is_next_draft(token):
            return self._accept(token)
        self.settle()
        if shares_turns() or not self._pace.looks():
            return self._transcript.forward([token])
        kind, n = self._plan(n_left)
        started = time.perf_counter()
        drafts = self._drafter.propose(n) if n else ()
        if drafts:
            logits = self._transcript.forward_with_drafts(token, drafts)
            self._pending = kind, len(drafts), 0
            self.n_drafts += len(drafts)
        else:
            logits = self._transcript.forward([token])
        source = kind.source if drafts else _NO_DRAFTS
        self._pace.add_pass(source, 1 + len(drafts), time.perf_counter() - started)
        return logits

    def settle(self) -> None:
        """Report the drafts of the last pass."""
        if self._pending is not None:
            kind, n_drafts, n_right = self._pending
            self._pace.add_drafts(kind, n_right, n_drafts)
            self._pending = None

    def close(self) -> None:
        """Free the drafter."""
        self.settle()
        self._drafter.close()

    def _accept(self, token: int) -> F32Array:
        assert self._pending is not None, "a draft is of the last pass"
        kind, n_drafts, n_right = self._pending
        self._pending = kind, n_drafts, n_right + 1
        self.n_right += 1
        return self._transcript.forward([token])

    def _plan(self, n_left: int) -> tuple[Kind, int]:
        """Kind and number of the drafts of the next pass; 0 where they do not pay."""
        kind = self._drafter.kind()
        if kind is None:
            return _NOTHING, 0
        n = self._pace.n_drafts(kind, min(n_left, self._transcript.capacity - self._transcript.n_past - 1))
        if n:
            self._drafter.prepare()
        return kind, n
