"""The guide of an answer, from its options."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sprat.errors import InputError
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
_MORE_AROUND = 3  # tokens beside the end of reasoning: its beginning, and two line breaks after it
_ANSWER_SHARE = 4  # with close_json, reasoning leaves at least one part of this many of the tokens for the answer


class CallRules(msgspec.Struct, frozen=True, kw_only=True):
    """Rules for tool calls in an answer.

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


class AnswerGuides(msgspec.Struct, frozen=True):
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
        if self.rules.close_json and grammar is None and self.calls is None:
            raise InputError("close_json finishes an answer of a response_format, and there is none; pass one")
        if grammar is None and self.calls is None and self.rules.max_thinking_tokens is None:
            return None
        tail = self.tokenizer.decode(token for token in prompt[-_TAIL:] if token < self.tokenizer.vocab_size)
        is_open = tail.rstrip().endswith(OPEN)
        may_open = may_reason and CLOSE not in tail
        bound = None if grammar is None else self._bound(grammar)
        budget = self._thinking_budget(bound)
        if budget is not None and budget < 0 and is_open:
            raise InputError(
                f"close_json: max_tokens leaves {self.max_tokens} tokens for the reasoning, its end and an answer that "
                "matches response_format, which is too few; raise max_tokens"
            )
        answer = self._with_calls(bound)
        if not is_open and (not may_open or (budget is not None and budget < 0)):
            return answer
        return ReasoningGuide(
            self.tokenizer,
            self.vocab_size,
            answer=answer,
            is_open=is_open,
            may_open=may_open,
            max_tokens=budget,
            on_token=bound.spend if isinstance(bound, ClosingGuide) else lambda: None,
        )

    def _grammar(self) -> str | None:
        """The grammar of the whole answer, or ``None``."""
        if self.calls is not None and self.calls.is_required:
            return self.calls.grammar
        return grammar_of(self.rules.response_format)

    def _bound(self, grammar: str) -> GrammarGuide | ClosingGuide:
        if self.rules.close_json:
            return ClosingGuide(self._vocabulary, grammar, self.max_tokens)
        return GrammarGuide(self._vocabulary, grammar)

    def _thinking_budget(self, bound: Guide | None) -> int | None:
        """Tokens of reasoning; below 0 where an answer that is to be finished leaves none."""
        asked = self.rules.max_thinking_tokens
        if not isinstance(bound, ClosingGuide):
            return asked
        around = len(ReasoningTokens.of(self.tokenizer).closing) + _MORE_AROUND
        most = self.max_tokens - max(self.max_tokens // _ANSWER_SHARE, bound.n_shortest) - around
        return most if asked is None else min(asked, most)

    def _with_calls(self, bound: Guide | None) -> Guide | None:
        """The guide of an answer that is ``bound``, or calls tools."""
        if self.calls is None or self.calls.is_required:
            return bound
        return self._triggered(self.calls) if bound is None else EitherGuide([bound, self._grammar_guide(self.calls)])

    def _triggered(self, calls: CallRules) -> Guide:
        vocabulary, decoder = self._vocabulary, self.tokenizer.stream_decoder(continues=True, shown=calls.shown)

        def tokenize(text: str) -> list[int]:
            ids: list[int] = []
            for part in self.tokenizer.special.split(text):
                ids += [part] if isinstance(part, int) else vocabulary.tokenize(part)
            return ids

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
