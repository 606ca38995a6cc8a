"""Stop strings in text that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopScanner", "longest_overlap"]


class StopScanner:
    """Cuts streamed text at the first stop string, and holds back text that may become one.

    Special tokens are not part of the answer, but of the text that is searched: a stop string may name one, and none
    matches text on both sides of one.

    Example:
        >>> scanner = StopScanner(["END"])
        >>> scanner.feed("the E"), scanner.feed("ND of it"), scanner.matched
        ('the ', '', 'END')
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self._hidden: list[tuple[int, int]] = []  # begin and end of special tokens in the held text
        self.matched: str | None = None  # the stop string that was found

    def feed(self, text: str, special: str = "") -> str:
        """The text that is certainly before any stop string; empty once one was found.

        Args:
            text: the next text of the answer.
            special: the text of a special token after it.
        """
        if self.matched is not None:
            return ""
        end = len(self._held) + len(text)
        if special:
            self._hidden.append((end, end + len(special)))
        self._held += text + special
        matches = [(at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if matches:  # the match that ends first, so that the result does not depend on where the text was cut
            _, at, self.matched = min(matches)
            visible = self._release(at)
            self._held, self._hidden = "", []
            return visible
        n_held = max((longest_overlap(self._held, stop) for stop in self._stops), default=0)
        return self._release(len(self._held) - n_held)

    def flush(self) -> str:
        """The text that was held back and did not become a stop string."""
        return self._release(len(self._held))

    def _release(self, length: int) -> str:
        """Remove the first ``length`` characters from the held text, and return them without special tokens."""
        parts, start = [], 0
        for begin, end in self._hidden:
            parts.append(self._held[start : min(begin, length)])
            start = min(end, length)
        parts.append(self._held[start:length])
        self._held = self._held[length:]
        self._hidden = [(max(begin - length, 0), end - length) for begin, end in self._hidden if end > length]
        return "".join(parts)


def longest_overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of ``text`` that is a proper prefix of ``stop``."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
