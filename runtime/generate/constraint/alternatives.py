"""Guides over guides: one of several, and one that begins where a text appears."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sprat.runtime.generate.constraint.grammar_guide import GrammarGuide
from sprat.runtime.generate.guide import Guide, TokenMask

__all__ = ["EitherGuide", "TriggeredGuide"]


class EitherGuide:
    """An answer that follows one of several guides; each token leaves those that allow it.

    Args:
        guides: at least one, none of which allows every token.
    """

    def __init__(self, guides: Sequence[Guide]) -> None:
        self._guides = list(guides)
        self._masks: list[TokenMask | None] = []

    @property
    def is_complete(self) -> bool:
        """Whether all remaining guides are complete."""
        return all(guide.is_complete for guide in self._guides)

    def allowed(self) -> TokenMask | None:
        """The union of their masks; ``None`` if one of them allows everything."""
        self._masks = [guide.allowed() for guide in self._guides]
        result: TokenMask | None = None
        for mask in self._masks:
            if mask is None:
                return None
            result = mask.copy() if result is None else result | mask
        return result

    def accept(self, token_id: int) -> int:
        """Take a token, and leave the guides that allow it."""
        pairs = zip(self._guides, self._masks, strict=True)
        self._guides = [guide for guide, mask in pairs if mask is None or mask[token_id]]
        taken = [guide.accept(token_id) for guide in self._guides]
        return taken[0]

    def forced(self) -> list[int]:
        """Tokens that the only remaining guide forces; empty while there are several."""
        return self._guides[0].forced() if len(self._guides) == 1 else []


class TriggeredGuide:
    """Any text, until a trigger appears in it; from there on a grammar, which begins with the trigger.

    Args:
        start: makes the grammar's guide.
        text_of: the text of a token, special tokens included; may hold back incomplete characters.
        tokenize: text to token ids.
        trigger: the text that begins the grammar.
        at_start: the trigger counts at the beginning of the answer only, after white space.
    """

    def __init__(
        self,
        start: Callable[[], GrammarGuide],
        text_of: Callable[[int], str],
        tokenize: Callable[[str], list[int]],
        *,
        trigger: str,
        at_start: bool,
    ) -> None:
        self._start, self._text_of, self._tokenize = start, text_of, tokenize
        self._trigger, self._at_start = trigger, at_start
        self._text = ""
        self._grammar: GrammarGuide | None = None
        self._is_free = False  # no trigger can follow

    @property
    def is_complete(self) -> bool:
        """The grammar is matched, and nothing may follow."""
        return self._grammar is not None and self._grammar.is_complete

    def allowed(self) -> TokenMask | None:
        """Every token before the trigger."""
        return None if self._grammar is None else self._grammar.allowed()

    def accept(self, token_id: int) -> int:
        """Take a token, and begin the grammar where it completes the trigger."""
        if self._grammar is not None:
            return self._grammar.accept(token_id)
        if self._is_free:
            return token_id
        self._text += self._text_of(token_id)
        at = self._text.find(self._trigger)
        if self._at_start:
            begun = self._text.lstrip()
            self._is_free = bool(begun) and not begun.startswith(self._trigger)
            at = len(self._text) - len(begun) if begun and not self._is_free else -1
        if at >= 0:
            self._begin(self._text[at:])
        else:
            self._text = self._text if self._at_start else self._text[-len(self._trigger) :]
        return token_id

    def forced(self) -> list[int]:
        """Tokens that the grammar forces."""
        return [] if self._grammar is None else self._grammar.forced()

    def _begin(self, text: str) -> None:
        """Begin the grammar with ``text``; where it does not match, the answer stays free, and the trigger is text."""
        grammar, tokens = self._start(), self._tokenize(text)
        if grammar.matcher.try_consume_tokens(tokens) == len(tokens):
            self._grammar = grammar
        self._is_free, self._text = self._at_start, ""
