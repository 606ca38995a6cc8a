"""Tokens one by one to text, although a token may end inside a character."""

from __future__ import annotations

import codecs
from collections.abc import Callable

__all__ = ["StreamDecoder"]


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
