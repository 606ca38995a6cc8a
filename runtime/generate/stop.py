"""Text that comes in pieces: tokens that end inside a character, and stop strings that span tokens."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

__all__ = ["StopScanner", "StreamDecoder", "longest_overlap"]


class StreamDecoder:
    """Tokens one by one to text, holding back the bytes of an unfinished character.

    The pieces and the flush join to the text of the whole; bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], *, strip_space: bool = False) -> None:
        self._token_bytes = token_bytes
        self._strip_space = strip_space  # of the first token that has any text
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        """The text that is complete with this token; may be empty."""
        data = self._token_bytes(token_id)
        if self._strip_space and data:
            self._strip_space = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is held back: empty, or U+FFFD for a character that never ended."""
        return self._utf8.decode(b"", final=True)


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
