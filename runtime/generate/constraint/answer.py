"""From the options of an answer to the guide that carries them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sprat.runtime.generate.constraint.closing import ClosingGuide
from sprat.runtime.generate.constraint.grammar import GrammarVocabulary
from sprat.runtime.generate.constraint.grammar_guide import GrammarGuide
from sprat.runtime.generate.constraint.response_format import grammar_of
from sprat.runtime.generate.guide import Guide
from sprat.runtime.generate.options import AnswerRules
from sprat.runtime.generate.reasoning_guide import CLOSE, OPEN, ReasoningGuide, ReasoningTokens
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["AnswerGuides"]

_TAIL = 16  # last tokens of a prompt, in which a tag of reasoning is found
_ANSWER_SHARE = 4  # with close_json, reasoning leaves at least one part of this many of the tokens for the answer


@dataclass(frozen=True, slots=True)
class AnswerGuides:
    """Makes the guide of an answer.

    Attributes:
        tokenizer: the model's tokenizer.
        vocab_size: number of logits.
        rules: the caller's options.
        max_tokens: tokens that the answer can have.
    """

    tokenizer: Tokenizer
    vocab_size: int
    rules: AnswerRules
    max_tokens: int

    def guide(self, prompt: Sequence[int], *, may_reason: bool) -> Guide | None:
        """The guide after ``prompt``; ``None`` where any token may come.

        Args:
            prompt: token ids.
            may_reason: the answer may begin with reasoning, even if the prompt does not open it.

        Raises:
            InputError: the grammar cannot be used, or ``max_tokens`` is too small for any answer.
            BackendError: llguidance is not installed.
        """
        grammar = grammar_of(self.rules.response_format)
        if grammar is None and self.rules.max_thinking_tokens is None:
            return None
        tail = self.tokenizer.decode(prompt[-_TAIL:])
        is_open = tail.rstrip().endswith(OPEN)
        may_open = may_reason and CLOSE not in tail
        budget = self._thinking_budget(closes=grammar is not None and self.rules.close_json)
        answer = None if grammar is None else self._answer(grammar, budget if is_open or may_open else 0)
        if not is_open and not may_open:
            return answer
        return ReasoningGuide(
            self.tokenizer, self.vocab_size, answer=answer, is_open=is_open, may_open=may_open, max_tokens=budget
        )

    def _thinking_budget(self, *, closes: bool) -> int | None:
        asked = self.rules.max_thinking_tokens
        if not closes:
            return asked
        most = self.max_tokens - self.max_tokens // _ANSWER_SHARE - self._n_around
        return max(0, most if asked is None else min(asked, most))

    @property
    def _n_around(self) -> int:
        """Tokens of the tags around reasoning, and of a line break after it."""
        return len(ReasoningTokens.of(self.tokenizer).closing) + 2

    def _answer(self, grammar: str, thinking_tokens: int | None) -> Guide:
        vocabulary = GrammarVocabulary.of(self.tokenizer, self.vocab_size)
        if not self.rules.close_json:
            return GrammarGuide(vocabulary, grammar)
        reasoning = thinking_tokens + self._n_around if thinking_tokens else 0
        return ClosingGuide(vocabulary, grammar, self.max_tokens - reasoning)
