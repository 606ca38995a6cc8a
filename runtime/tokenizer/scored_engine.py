"""``ScoredEngine``: SentencePiece BPE of a vocabulary in which several tokens have the same score.

SentencePiece and llama.cpp merge the pair whose token has the highest score, and of equal ones the leftmost. A trained
model has each score once, so a list of merges says the same, which the library runs. Where vocabularies were extended
by hand, as for Chinese Llamas, thousands of tokens have the score 0, and the place decides.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sprat.runtime.tokenizer.library_engine import engine_of
from sprat.runtime.tokenizer.vocabulary import Vocabulary

__all__ = ["ScoredEngine", "tied_scores"]

_Json = dict[str, Any]


def tied_scores(vocabulary: Vocabulary, mergeable: frozenset[str]) -> dict[str, float]:
    """Text -> score of the ``mergeable`` tokens, if two that text merges into have the same; empty otherwise.

    Args:
        vocabulary: a SentencePiece one.
        mergeable: the texts of tokens that are merged, and merged into.
    """
    scores = {text: vocabulary.scores[vocabulary.ids[text]] for text in mergeable}
    first: dict[float, str] = {}
    tied = {other for text, score in scores.items() if (other := first.setdefault(score, text)) != text}
    tied |= {text for text, score in scores.items() if first[score] in tied}
    n_merged = sum(any({text[:at], text[at:]} <= mergeable for at in range(1, len(text))) for text in tied)
    return scores if n_merged > 1 else {}


class ScoredEngine:
    """Text to ids; special tokens in the text are encoded as plain text.

    Args:
        document: a tokenizer.json, as :func:`~sprat.runtime.tokenizer.hf_json.prepare` returns it.
        scores: of the tokens that are merged.
    """

    def __init__(self, document: _Json, scores: Mapping[str, float]) -> None:
        self._scores = scores
        self._vocab: dict[str, int] = document["model"]["vocab"]
        self._engine = engine_of({**document, "model": {**document["model"], "merges": []}})

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, without a BOS."""
        encoded = self._engine.encode(text, add_special_tokens=False)
        symbols = zip(encoded.word_ids, encoded.tokens, strict=True)
        words = ([symbol for _, symbol in word] for _, word in itertools.groupby(symbols, lambda symbol: symbol[0]))
        return [self._vocab[part] for word in words for part in self._merged(word)]

    def _merged(self, symbols: Sequence[str]) -> list[str]:
        """The parts of a word after all merges: the highest score first, of equal ones the leftmost."""
        parts = [*symbols, ""]  # the last one ends every search
        after, before = [*range(1, len(parts)), 0], [0, *range(len(parts) - 1)]
        candidates: list[tuple[float, int, int, str]] = []

        def consider(left: int, right: int) -> None:
            text = parts[left] + parts[right]
            if parts[left] and parts[right] and (score := self._scores.get(text)) is not None:
                heapq.heappush(candidates, (-score, left, right, text))

        for left in range(len(symbols)):
            consider(left, left + 1)
        while candidates:
            _, left, right, text = heapq.heappop(candidates)
            if not parts[left] or after[left] != right or parts[left] + parts[right] != text:
                continue  # one of them was merged before
            parts[left], parts[right] = text, ""
            after[left] = after[right]
            before[after[left]] = left
            if left:
                consider(before[left], left)
            consider(left, after[left])
        return [part for part in parts if part]
