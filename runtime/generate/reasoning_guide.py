"""``ReasoningGuide``: reasoning is free, within a budget of tokens; what comes after it follows another guide."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable

import msgspec
import numpy as np

from sprat.runtime.generate.guide import Guide, TokenMask, mask_of
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["CLOSE", "OPEN", "ReasoningGuide", "ReasoningTokens"]

OPEN, CLOSE = "<think>", "</think>"
_LONGEST = 1024  # characters of a token
_MAX_BREAKS = 2  # tokens of line breaks between reasoning and answer
_CLOSING_TEXT = f"\n{CLOSE}\n\n"  # what DeepSeek's and Qwen's models write themselves


class ReasoningTokens(msgspec.Struct, frozen=True):
    """The tokens around reasoning.

    Attributes:
        open_id: ``<think>`` as one token, or ``None``.
        closing: the tokens that close it.
        breaks: tokens of line breaks only, which may come between reasoning and answer.
        ends: end tokens.
    """

    open_id: int | None
    closing: tuple[int, ...]
    breaks: tuple[int, ...]
    ends: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ReasoningTokens:
        """The tokens of a model."""
        tokens = tokenizer.vocabulary.tokens
        open_id = tokens.index(OPEN) if OPEN in tokens else None
        # a special token is one only if it is named so: text is never encoded as a control token
        parts = tokenizer.special.split(_CLOSING_TEXT)
        anchor = next(iter(tokenizer.eog_ids), 0)  # in the middle of a text no space is added
        closing = tokenizer.encode_parts([anchor, *parts])[1:]
        breaks = {ids[0] for text in ("\n", "\n\n") if len(ids := tokenizer.encode_parts([anchor, text])[1:]) == 1}
        return cls(open_id, tuple(closing), tuple(sorted(breaks)), tokenizer.eog_ids)


class _State(enum.Enum):
    BEFORE = enum.auto()  # <think> may follow
    THINKING = enum.auto()
    AFTER = enum.auto()  # just closed: line breaks may follow
    ANSWERING = enum.auto()


class ReasoningGuide:
    """Lets the model reason as it likes, and closes the reasoning when its tokens are used up.

    Args:
        tokenizer: the model's tokenizer.
        vocab_size: number of logits.
        answer: the guide of the answer, if it has one.
        is_open: the prompt ends with ``<think>``.
        may_open: the answer may begin with ``<think>``.
        max_tokens: of reasoning; ``None``: no limit.
        on_token: called for each token that is not part of the answer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        *,
        answer: Guide | None,
        is_open: bool,
        may_open: bool,
        max_tokens: int | None = None,
        on_token: Callable[[], None] = lambda: None,
    ) -> None:
        self._tokens = ReasoningTokens.of(tokenizer)
        self._vocab_size = vocab_size
        self._answer = answer
        self._left = max_tokens
        self._on_token = on_token
        self._decoder = tokenizer.stream_decoder(continues=True)
        self._text = ""  # the last characters, in which the tags are found
        self._state = _State.THINKING if is_open else _State.BEFORE if may_open else _State.ANSWERING
        self._queue: deque[int] = deque()
        self._n_breaks = 0

    @property
    def is_complete(self) -> bool:
        """Whether the answer after the reasoning is complete."""
        return self._state is _State.ANSWERING and self._answer is not None and self._answer.is_complete

    def allowed(self) -> TokenMask | None:
        """Any token in reasoning, its closing when the budget is used up, and what the answer's guide allows after."""
        if self._state is _State.THINKING:
            return self._thinking_mask()
        mask = None if self._answer is None else self._answer.allowed()
        if mask is not None and self._state is _State.BEFORE and self._tokens.open_id is not None:
            mask[self._tokens.open_id] = True
        elif mask is not None and self._state is _State.AFTER:
            mask[list(self._tokens.breaks)] = True
        return mask

    def accept(self, token_id: int) -> int:
        """Take a token of the reasoning or of the answer."""
        if self._state is _State.BEFORE:
            return self._accept_first(token_id)
        if self._state is _State.THINKING:
            self._think(token_id)
            return token_id
        if self._state is _State.AFTER and token_id in self._tokens.breaks:
            self._n_breaks += 1
            self._state = _State.AFTER if self._n_breaks < _MAX_BREAKS else _State.ANSWERING
            self._on_token()
            return token_id
        self._state = _State.ANSWERING
        return token_id if self._answer is None else self._answer.accept(token_id)

    def forced(self) -> list[int]:
        """The rest of the closing of the reasoning, or what the answer's guide forces."""
        if self._state is _State.THINKING:
            return list(self._queue)
        return self._answer.forced() if self._state is _State.ANSWERING and self._answer is not None else []

    def _thinking_mask(self) -> TokenMask | None:
        if not self._queue and self._left is not None and self._left <= 0:
            self._queue.extend(self._tokens.closing)
        if self._queue:
            return mask_of([self._queue[0]], self._vocab_size)
        if self._answer is None:
            return None
        mask = np.ones(self._vocab_size, np.bool_)
        mask[[end for end in self._tokens.ends if end < self._vocab_size]] = False
        return mask

    def _accept_first(self, token_id: int) -> int:
        """A token before which nothing but white space was generated."""
        if token_id == self._tokens.open_id:
            self._state = _State.THINKING
            self._on_token()
            return token_id
        if self._answer is not None:  # the mask allowed only <think> beside the answer
            self._state = _State.ANSWERING
            return self._answer.accept(token_id)
        self._text += self._decoder.feed(token_id)
        begun = self._text.lstrip()
        if begun.startswith(OPEN):
            self._state, self._text = _State.THINKING, begun.removeprefix(OPEN)
        elif not OPEN.startswith(begun):
            self._state = _State.ANSWERING
        return token_id

    def _think(self, token_id: int) -> None:
        self._on_token()
        if self._queue:
            self._queue.popleft()
            if not self._queue:
                self._state = _State.ANSWERING
            return
        if self._left is not None:
            self._left -= 1
        self._text = (self._text + self._decoder.feed(token_id))[-2 * len(CLOSE) - _LONGEST :]
        if CLOSE in self._text:
            self._state = _State.AFTER
