"""Streaming detokenization: a token may end inside a character."""

from __future__ import annotations

import codecs
from collections.abc import Callable

__all__ = ["StreamDecoder"]


class StreamDecoder:
    """Decodes tokens one by one, and holds back the bytes of an incomplete character.

    The pieces and the flush join to the text of all tokens; invalid UTF-8 becomes U+FFFD.

    Args:
        token_bytes: the UTF-8 bytes of a token id.
        strip_space: remove a leading space from the first token that has text.
        special_text: the text of a token that decoding leaves out; empty for others.
    """

    def __init__(
        self,
        token_bytes: Callable[[int], bytes],
        *,
        strip_space: bool = False,
        special_text: Callable[[int], str] = lambda _: "",
    ) -> None:
        self._token_bytes = token_bytes
        self.special_text = special_text
        self._strip_space = strip_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        """The characters that this token completes; may be empty."""
        data = self._token_bytes(token_id)
        if self._strip_space and data:
            self._strip_space = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def flush(self) -> str:
        """The rest: U+FFFD for an incomplete character, otherwise empty."""
        return self._utf8.decode(b"", final=True)
