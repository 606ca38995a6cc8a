"""Stop strings in text that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopScanner", "longest_overlap"]


class StopScanner:
    """Cuts streamed text at the first stop string, and holds back text that may become one.

    Example:
        >>> scanner = StopScanner(["END"])
        >>> scanner.feed("the E"), scanner.feed("ND of it"), scanner.matched
        ('the ', '', 'END')
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.matched: str | None = None  # the stop string that was found

    def feed(self, text: str) -> str:
        """The text that is certainly before any stop string; empty once one was found."""
        if self.matched is not None:
            return ""
        text = self._held + text
        matches = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if matches:  # the match that ends first, so that the result does not depend on where the text was cut
            _, at, self.matched = min(matches)
            self._held = ""
            return text[:at]
        n_held = max((longest_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def flush(self) -> str:
        """The text that was held back and did not become a stop string."""
        held, self._held = self._held, ""
        return held


def longest_overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of ``text`` that is a proper prefix of ``stop``."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
