"""Stop strings in text that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopScanner", "longest_overlap"]


class StopScanner:
    """Cuts a stream of text at the first stop string, holding back what may become one.

    Example:
        >>> scanner = StopScanner(["END"])
        >>> scanner.feed("the E"), scanner.feed("ND of it"), scanner.stopped
        ('the ', '', 'END')
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped: str | None = None  # the stop string that was met

    def feed(self, text: str) -> str:
        """The text that is certainly before any stop string; after one was met, nothing."""
        if self.stopped is not None:
            return ""
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:  # the one that is complete first, so that it does not matter where the text was cut
            _, at, self.stopped = min(found)
            self._held = ""
            return text[:at]
        kept = max((longest_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def flush(self) -> str:
        """What was held back and did not become a stop string."""
        held, self._held = self._held, ""
        return held


def longest_overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``stop``."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
