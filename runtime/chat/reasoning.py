"""Thoughts apart from the answer, while it streams: ``<think>…</think>`` to ``reasoning_content`` and ``content``."""

from __future__ import annotations

import enum
from typing import NamedTuple

from sprat.runtime.generate.stop import longest_overlap

__all__ = ["ReasoningParts", "ReasoningSplitter"]

_OPEN, _CLOSE = "<think>", "</think>"


class ReasoningParts(NamedTuple):
    """What a piece of text adds to each of the two."""

    reasoning: str
    content: str


class _State(enum.Enum):
    BEFORE = enum.auto()  # nothing but white space so far: a thought may open
    THINKING = enum.auto()
    ANSWERING = enum.auto()


class ReasoningSplitter:
    r"""Takes an answer in pieces of any size; what it gives does not depend on how the answer was cut.

    A thought is what stands between the tags at the beginning of an answer, or from the beginning on when the prompt
    itself ended by opening one. An answer that is cut inside a thought has no content. White space around a thought and
    before the answer after it belongs to neither; an answer without a thought is left as it is.

    Args:
        prompt: The rendered prompt that the model answers.

    Example:
        >>> splitter = ReasoningSplitter("<｜Assistant｜><think>\n")
        >>> [splitter.feed(text) for text in ("Hm.</th", "ink>\n\nParis")]
        [ReasoningParts(reasoning='Hm.', content=''), ReasoningParts(reasoning='', content='Paris')]
    """

    def __init__(self, prompt: str = "") -> None:
        self._state = _State.THINKING if prompt.rstrip().endswith(_OPEN) else _State.BEFORE
        self._held = ""
        self._at_start = True  # of a thought, or of the answer after one: white space is dropped there

    def feed(self, text: str) -> ReasoningParts:
        """What is certain now."""
        self._held += text
        if self._state is _State.BEFORE:
            self._look_for_thought()
        reasoning = self._think() if self._state is _State.THINKING else ""
        content = self._answer() if self._state is _State.ANSWERING else ""
        return ReasoningParts(reasoning, content)

    def flush(self) -> ReasoningParts:
        """What was held back when the answer ended."""
        held, self._held = self._held, ""
        return ReasoningParts(held.rstrip(), "") if self._state is _State.THINKING else ReasoningParts("", held)

    def _look_for_thought(self) -> None:
        text = self._held.lstrip()
        if text.startswith(_OPEN):
            self._state, self._held = _State.THINKING, text.removeprefix(_OPEN)
        elif not _OPEN.startswith(text):
            self._state, self._at_start = _State.ANSWERING, False

    def _think(self) -> str:
        self._drop_leading_space()
        thought, closed, rest = self._held.partition(_CLOSE)
        if closed:
            self._state, self._held, self._at_start = _State.ANSWERING, rest, True
            return thought.rstrip()
        certain = thought[: len(thought) - longest_overlap(thought, _CLOSE)].rstrip()
        self._held = thought[len(certain) :]
        return certain

    def _answer(self) -> str:
        self._drop_leading_space()
        content, self._held = self._held, ""
        return content

    def _drop_leading_space(self) -> None:
        if self._at_start:
            self._held = self._held.lstrip()
            self._at_start = not self._held
