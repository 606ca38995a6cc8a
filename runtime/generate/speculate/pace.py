"""``Pace``: how many drafts a pass checks, from what passes cost and how many drafts were right.

A pass of ``k + 1`` tokens costs ``c(k + 1)`` passes of one token, which is measured: an MoE model reads more experts
for more tokens, and a core that is short of arithmetic takes longer. If a draft is right with probability ``a``, the
pass yields ``1 + a + ... + a^k`` tokens (arXiv 2211.17192, eq. 1). The ``k`` with the most tokens per cost is taken; 0
is no drafts.

Other programs make passes slower, now more and now less. So a pass is compared with what one of one token took lately,
not with the fastest of its kind, and of the costs of passes of one length the median counts.
"""

from __future__ import annotations

import statistics
from collections import deque

from sprat.runtime.generate.speculate.drafter import Kind

__all__ = ["Pace"]

_RECENT = 9  # passes of one length of which the median cost counts
_LATELY = 0.1  # weight of the last pass of one token in the mean
_OUTLIER = 3.0  # times what was expected; more is not believed
_GUESS = 0.4  # cost of each further token, until it is measured
_BELIEVED = 3  # passes of one length that are believed against shorter ones
_PRIOR = 1.0  # right and wrong drafts that each kind begins with
_FORGET = 0.97  # weight of earlier drafts after one more
_MIN_GAIN = 1.02
_SHARE = 0.01  # of the time of passes may be lost to wrong drafts
_CREDIT, _MAX_CREDIT = 3.0, 8.0  # passes of one token that may be lost at first, and after gains
_TRY_EVERY = 8  # chances after which a kind that does not pay is tried again
_PATIENCE = 8  # passes without drafts after which
_LOOK_EVERY = 8  # only every so many-th pass looks for some: looking takes some 10 us, a pass of a small model 300
_PLAIN_EVERY = 32  # passes after which one without drafts is measured


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
        self._recent: dict[tuple[str, int], deque[float]] = {}  # costs by source and tokens of the pass
        self._median: dict[tuple[str, int], float] = {}  # of the recent
        self._plain = 0.0  # mean seconds of the last passes of one token; 0 before the first
        self._right: dict[Kind, tuple[float, float]] = {}  # right drafts, and all that were checked
        self._skipped: dict[Kind, int] = {}
        self._credit = _CREDIT  # passes of one token
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
        if n_tokens == 1:
            plain = self._plain or seconds
            self._plain = plain + _LATELY * (min(seconds, _OUTLIER * plain) - plain)
            self._since_plain = 0
            self._add_credit(_SHARE)
        elif self._plain:
            self._add_drafted(source, n_tokens, seconds / self._plain)

    def add_drafts(self, kind: Kind, n_right: int, n_drafts: int) -> None:
        """Take how many drafts of a pass were right, from the first on."""
        right, checked = self._right.get(kind, (_PRIOR, 2 * _PRIOR))
        n_checked = n_right + (n_right < n_drafts)
        self._right[kind] = _FORGET * right + n_right, _FORGET * checked + n_checked
        self._add_credit(n_right)

    def _add_drafted(self, source: str, n_tokens: int, cost: float) -> None:
        cost = min(cost, _OUTLIER * self._cost(source, n_tokens))
        recent = self._recent.setdefault((source, n_tokens), deque(maxlen=_RECENT))
        recent.append(cost)
        self._median[source, n_tokens] = statistics.median(recent)
        self._since_plain += 1
        self._n_without = 0
        self._add_credit(1 + _SHARE * cost - cost)

    def _best(self, kind: Kind, most: int) -> int:
        """The number of drafts with the most tokens per cost; 0 where none gains enough."""
        right, checked = self._right.get(kind, (_PRIOR, 2 * _PRIOR))
        best, best_rate = 0, _MIN_GAIN
        likely = tokens = 1.0
        for k in range(1, most + 1):
            likely *= right / checked
            tokens += likely
            rate = tokens / self._cost(kind.source, k + 1)
            if rate > best_rate:
                best, best_rate = k, rate
        return best

    def _cost(self, source: str, n_tokens: int) -> float:
        """Cost of a pass: measured, or what each further token costs of the longest pass that is shorter.

        A length that was measured once or twice costs no more than shorter ones say.
        """
        known = self._median.get((source, n_tokens))
        if known is not None and len(self._recent[source, n_tokens]) >= _BELIEVED:
            return known
        expected = 1 + _GUESS * (n_tokens - 1)
        for n in range(n_tokens - 1, 1, -1):
            if shorter := self._median.get((source, n)):
                expected = shorter + (n_tokens - n) * max(0.0, shorter - 1) / (n - 1)
                break
        return expected if known is None else min(known, expected)

    def _add_credit(self, passes: float) -> None:
        self._credit = max(-_MAX_CREDIT, min(self._credit + passes, _MAX_CREDIT))
