"""``Pace``: how many drafts a pass checks, from what passes cost and how many drafts were right.

A pass of ``k + 1`` tokens takes ``t(k + 1)`` seconds, which is measured: an MoE model reads more experts for
more tokens, and a core that is short of arithmetic takes longer. If a draft is right with probability ``a``, the pass
yields ``1 + a + ... + a^k`` tokens (arXiv 2211.17192, eq. 1). The ``k`` with the most tokens per second is taken; 0 is
no drafts.
"""

from __future__ import annotations

from collections import deque

from sprat.runtime.generate.speculate.drafter import Kind

__all__ = ["Pace"]

_RECENT = 8  # passes of which the fastest counts: what makes others slower is another program
_OUTLIER = 3.0  # times what was expected; more is not believed
_GUESS = 0.4  # of a pass for each further token, until it is measured
_PRIOR = 1.0  # right and wrong drafts that each kind begins with
_FORGET = 0.97  # weight of earlier drafts after one more
_MIN_GAIN = 1.02
_SHARE = 0.01  # of the time of passes may be lost to wrong drafts
_CREDIT, _MAX_CREDIT = 3.0, 8.0  # passes of one token that may be lost at first, and after gains
_TRY_EVERY = 32  # chances after which a kind that does not pay is tried again
_PATIENCE = 8  # passes without drafts after which
_LOOK_EVERY = 8  # only every so many-th pass looks for some: looking takes some 10 us, a pass of a small model 300
_PLAIN_EVERY = 64  # passes after which one without drafts is measured


class Pace:
    """Measurements of one engine, which its answers share.

    An account bounds the loss: what drafts win is added, what they lose is taken off, and without credit there are no
    drafts.

    It is asked at every token, of which a small model makes thousands a second: what can be known before is.

    Args:
        max_drafts: of one pass.
        always: check as many drafts as there are, whether that pays or not.
    """

    def __init__(self, max_drafts: int, *, always: bool = False) -> None:
        self.max_drafts = max_drafts
        self.always = always
        self._recent: dict[tuple[str, int], deque[float]] = {}  # seconds by source and tokens of the pass
        self._fastest: dict[tuple[str, int], float] = {}  # of the recent
        self._plain = 0.0  # seconds of a pass of one token; 0 before the first
        self._right: dict[Kind, tuple[float, float]] = {}  # right drafts, and all that were checked
        self._skipped: dict[Kind, int] = {}
        self._credit = 0.0  # seconds
        self._since_plain = 0
        self._n_without = 0  # passes since the last drafts

    def looks(self) -> bool:
        """Whether the next pass looks for drafts at all; asked once for each."""
        self._n_without += 1
        return self.always or self._n_without <= _PATIENCE or self._n_without % _LOOK_EVERY == 0

    def n_drafts(self, kind: Kind, available: int) -> int:
        """Number of drafts of a kind to check, at most ``available``."""
        most = min(available, self.max_drafts)
        if self.always or most <= 0:
            return max(most, 0)
        if not self._plain or self._since_plain >= _PLAIN_EVERY or self._credit <= 0:
            return 0
        if best := self._best(kind, most):
            return best
        self._skipped[kind] = skipped = self._skipped.get(kind, 0) + 1
        return 1 if skipped % _TRY_EVERY == 0 else 0

    def add_pass(self, source: str, n_tokens: int, seconds: float) -> None:
        """Take the seconds of a pass of ``n_tokens``, drafting included; ``source`` is empty without drafts."""
        key = source, n_tokens
        if expected := self._pass_seconds(source, n_tokens):
            seconds = min(seconds, _OUTLIER * expected)
        else:
            self._credit = _CREDIT * seconds
        recent = self._recent.setdefault(key, deque(maxlen=_RECENT))
        recent.append(seconds)
        self._fastest[key] = min(recent)
        self._add_credit(_SHARE * seconds)
        if n_tokens == 1:
            self._plain, self._since_plain = self._fastest[key], 0
        else:
            self._since_plain += 1
            self._n_without = 0
            self._add_credit(self._plain - seconds)

    def add_drafts(self, kind: Kind, n_right: int, n_drafts: int) -> None:
        """Take how many drafts of a pass were right, from the first on."""
        right, checked = self._right.get(kind, (_PRIOR, 2 * _PRIOR))
        n_checked = n_right + (n_right < n_drafts)
        self._right[kind] = _FORGET * right + n_right, _FORGET * checked + n_checked
        self._add_credit(n_right * self._plain)

    def _best(self, kind: Kind, most: int) -> int:
        """The number of drafts with the most tokens per second; 0 where none gains enough."""
        right, checked = self._right.get(kind, (_PRIOR, 2 * _PRIOR))
        best, best_rate = 0, _MIN_GAIN / self._plain
        likely = tokens = 1.0
        for k in range(1, most + 1):
            likely *= right / checked
            tokens += likely
            rate = tokens / self._pass_seconds(kind.source, k + 1)
            if rate > best_rate:
                best, best_rate = k, rate
        return best

    def _pass_seconds(self, source: str, n_tokens: int) -> float:
        """Seconds of a pass: measured, or what each further token took of the longest pass that is shorter."""
        if n_tokens == 1:
            return self._plain
        if known := self._fastest.get((source, n_tokens)):
            return known
        for n in range(n_tokens - 1, 1, -1):
            if shorter := self._fastest.get((source, n)):
                return shorter + (n_tokens - n) * max(0.0, shorter - self._plain) / (n - 1)
        return self._plain * (1 + _GUESS * (n_tokens - 1))

    def _add_credit(self, seconds: float) -> None:
        most = _MAX_CREDIT * self._plain
        self._credit = max(-most, min(self._credit + seconds, most))
