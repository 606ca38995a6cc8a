"""From the options of an answer to the guide that carries them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sprat.runtime.generate.constraint.alternatives import EitherGuide, TriggeredGuide
from sprat.runtime.generate.constraint.closing import ClosingGuide
from sprat.runtime.generate.constraint.grammar import GrammarVocabulary
from sprat.runtime.generate.constraint.grammar_guide import GrammarGuide
from sprat.runtime.generate.constraint.response_format import grammar_of
from sprat.runtime.generate.guide import Guide
from sprat.runtime.generate.options import AnswerRules
from sprat.runtime.generate.reasoning_guide import CLOSE, OPEN, ReasoningGuide, ReasoningTokens
from sprat.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["AnswerGuides", "CallRules"]

_TAIL = 16  # last tokens of a prompt, in which a tag of reasoning is found
_ANSWER_SHARE = 4  # with close_json, reasoning leaves at least one part of this many of the tokens for the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRules:
    """How an answer calls tools.

    Attributes:
        grammar: of the calls, in Lark.
        trigger: the text with which they begin.
        at_start: only at the beginning of the answer.
        is_required: the answer is calls.
        shown: special tokens that are part of them, and of the text.
    """

    grammar: str
    trigger: str
    at_start: bool
    is_required: bool
    shown: frozenset[int]


@dataclass(frozen=True, slots=True)
class AnswerGuides:
    """Makes the guide of an answer.

    Attributes:
        tokenizer: the model's tokenizer.
        vocab_size: number of logits.
        rules: the caller's options.
        max_tokens: tokens that the answer can have.
        calls: what it may call.
    """

    tokenizer: Tokenizer
    vocab_size: int
    rules: AnswerRules
    max_tokens: int
    calls: CallRules | None = None

    def guide(self, prompt: Sequence[int], *, may_reason: bool) -> Guide | None:
        """The guide after ``prompt``; ``None`` where any token may come.

        Args:
            prompt: token ids.
            may_reason: the answer may begin with reasoning, even if the prompt does not open it.

        Raises:
            InputError: the grammar cannot be used, or ``max_tokens`` is too small for any answer.
            BackendError: llguidance is not installed.
        """
        grammar = self._grammar()
        if grammar is None and self.calls is None and self.rules.max_thinking_tokens is None:
            return None
        tail = self.tokenizer.decode(prompt[-_TAIL:])
        is_open = tail.rstrip().endswith(OPEN)
        may_open = may_reason and CLOSE not in tail
        budget = self._thinking_budget(closes=grammar is not None and self.rules.close_json)
        answer = self._answer(grammar, budget if is_open or may_open else 0)
        if not is_open and not may_open:
            return answer
        return ReasoningGuide(
            self.tokenizer, self.vocab_size, answer=answer, is_open=is_open, may_open=may_open, max_tokens=budget
        )

    def _grammar(self) -> str | None:
        """What the whole answer must match."""
        if self.calls is not None and self.calls.is_required:
            return self.calls.grammar
        return grammar_of(self.rules.response_format)

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

    def _answer(self, grammar: str | None, thinking_tokens: int | None) -> Guide | None:
        calls = None if self.calls is None or self.calls.is_required else self._triggered(self.calls)
        if grammar is None:
            return calls
        bound = self._bound(grammar, thinking_tokens)
        return bound if calls is None or self.calls is None else EitherGuide([bound, self._grammar_guide(self.calls)])

    def _bound(self, grammar: str, thinking_tokens: int | None) -> Guide:
        if not self.rules.close_json:
            return GrammarGuide(self._vocabulary, grammar)
        reasoning = thinking_tokens + self._n_around if thinking_tokens else 0
        return ClosingGuide(self._vocabulary, grammar, self.max_tokens - reasoning)

    def _triggered(self, calls: CallRules) -> Guide:
        vocabulary, decoder = self._vocabulary, self.tokenizer.stream_decoder(continues=True, shown=calls.shown)

        def tokenize(text: str) -> list[int]:
            parts = self.tokenizer.special.split(text)
            return [
                token for part in parts for token in ([part] if isinstance(part, int) else vocabulary.tokenize(part))
            ]

        self._grammar_guide(calls)  # a schema that is not supported is an error before anything runs
        return TriggeredGuide(
            lambda: self._grammar_guide(calls),
            decoder.feed,
            tokenize,
            trigger=calls.trigger,
            at_start=calls.at_start,
        )

    def _grammar_guide(self, calls: CallRules) -> GrammarGuide:
        return GrammarGuide(self._vocabulary, calls.grammar)

    @property
    def _vocabulary(self) -> GrammarVocabulary:
        return GrammarVocabulary.of(self.tokenizer, self.vocab_size)
