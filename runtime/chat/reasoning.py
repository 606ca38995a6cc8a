"""Separates reasoning from the answer in streamed text: ``<think>…</think>`` to ``reasoning_content``."""

from __future__ import annotations

import enum
from typing import NamedTuple

from sprat.runtime.generate.stop import longest_overlap

__all__ = ["ReasoningParts", "ReasoningSplitter"]

_OPEN, _CLOSE = "<think>", "</think>"


class ReasoningParts(NamedTuple):
    """A piece of text, split into reasoning and answer."""

    reasoning: str
    content: str


class _State(enum.Enum):
    BEFORE = enum.auto()  # only white space so far: ``<think>`` may follow
    THINKING = enum.auto()
    ANSWERING = enum.auto()


class ReasoningSplitter:
    r"""Splits generated text, fed in pieces of any size; the result does not depend on where the text is cut.

    Reasoning is the text between the tags at the beginning of an answer, or from the beginning to ``</think>`` if the
    prompt ends with ``<think>``. An answer that ends before ``</think>`` has no content. White space around the
    reasoning, and before the answer that follows it, is dropped; an answer without reasoning is unchanged.

    Args:
        prompt: the rendered prompt.

    Example:
        >>> splitter = ReasoningSplitter("<｜Assistant｜><think>\n")
        >>> [splitter.feed(text) for text in ("Hm.</th", "ink>\n\nParis")]
        [ReasoningParts(reasoning='Hm.', content=''), ReasoningParts(reasoning='', content='Paris')]
    """

    def __init__(self, prompt: str = "") -> None:
        self._state = _State.THINKING if prompt.rstrip().endswith(_OPEN) else _State.BEFORE
        self._held = ""
        self._at_start = True  # of the reasoning, or of the answer after it: white space is dropped there

    @property
    def is_reasoning(self) -> bool:
        """Whether the text so far is inside of the reasoning."""
        return self._state is _State.THINKING

    def feed(self, text: str) -> ReasoningParts:
        """The text that certainly belongs to the reasoning or to the answer."""
        self._held += text
        if self._state is _State.BEFORE:
            self._detect_reasoning()
        reasoning = self._feed_reasoning() if self._state is _State.THINKING else ""
        content = self._feed_answer() if self._state is _State.ANSWERING else ""
        return ReasoningParts(reasoning, content)

    def flush(self) -> ReasoningParts:
        """The text that was held back when generation ended."""
        held, self._held = self._held, ""
        return ReasoningParts(held.rstrip(), "") if self._state is _State.THINKING else ReasoningParts("", held)

    def _detect_reasoning(self) -> None:
        text = self._held.lstrip()
        if text.startswith(_OPEN):
            self._state, self._held = _State.THINKING, text.removeprefix(_OPEN)
        elif not _OPEN.startswith(text):
            self._state, self._at_start = _State.ANSWERING, False

    def _feed_reasoning(self) -> str:
        self._drop_leading_space()
        reasoning, closed, rest = self._held.partition(_CLOSE)
        if closed:
            self._state, self._held, self._at_start = _State.ANSWERING, rest, True
            return reasoning.rstrip()
        certain = reasoning[: len(reasoning) - longest_overlap(reasoning, _CLOSE)].rstrip()
        self._held = reasoning[len(certain) :]
        return certain

    def _feed_answer(self) -> str:
        self._drop_leading_space()
        content, self._held = self._held, ""
        return content

    def _drop_leading_space(self) -> None:
        if self._at_start:
            self._held = self._held.lstrip()
            self._at_start = not self._held
