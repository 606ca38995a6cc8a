"""``BPEEngine``: byte-level BPE by the ``tokenizers`` library, which gets a large vocabulary only when that pays.

The library takes 0.3 s for 100,000 merges, of which a short prompt needs a few hundred: a merge can happen in a word
only if the word contains both of its parts side by side. So the first texts are encoded with the tokens and merges that
are in them. Ids are the same, since these merges keep their order, which is their rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sprat.locks import ForkSafeLock
from sprat.runtime.tokenizer.byte_alphabet import byte_alphabet
from sprat.runtime.tokenizer.library_engine import bpe_model, engine_of

__all__ = ["BPEEngine", "in_one_piece"]

_Json = dict[str, Any]
_MAX_LOOKUPS = 1 << 17  # substrings of all texts together: then the library gets everything, which takes as long
_LOOKUPS_PER_TEXT = 1 << 12  # what searching the list of merges costs
_FEW_MERGES = 1 << 14  # which the library takes at once, in 50 ms
_AT_A_TIME = 1 << 14  # merges that are checked together: the memory of their parts is used again for the next ones


def in_one_piece(merges: list[str], vocab: Mapping[str, int]) -> bool:
    """Whether the library gets all merges at once: they are few, or name tokens that the vocabulary does not have."""
    if len(merges) < _FEW_MERGES:
        return True
    starts = range(0, len(merges), _AT_A_TIME)
    return not all(_name_tokens(merges[start : start + _AT_A_TIME], vocab) for start in starts)


def _name_tokens(merges: list[str], vocab: Mapping[str, int]) -> bool:
    """Whether each merge is ``"left right"``, and both parts and what they make are tokens."""
    lines = "\n".join(merges)
    codes = np.frombuffer(lines.encode("utf-8", "surrogatepass"), np.uint8)
    ends = codes[(codes == ord(" ")) | (codes == ord("\n"))]  # of parts
    if len(ends) != 2 * len(merges) - 1 or (ends[::2] != ord(" ")).any() or (ends[1::2] != ord("\n")).any():
        return False
    parts, made = set(lines.replace("\n", " ").split(" ")), lines.replace(" ", "").split("\n")
    return all(map(vocab.__contains__, parts)) and all(map(vocab.__contains__, made))


class BPEEngine:
    """Text to ids; special tokens in the text are encoded as plain text.

    Args:
        document: a tokenizer.json of byte-level BPE without merges, as
            :func:`~sprat.runtime.tokenizer.hf_json.prepare` returns it.
        merges: the merges, ``"left right"``, of tokens that the vocabulary has.
        longest: characters of the longest token.
    """

    def __init__(self, document: _Json, merges: list[str], longest: int) -> None:
        self._settings: _Json = document["model"]
        self._vocab: dict[str, int] = self._settings["vocab"]
        self._merges = merges
        self._longest = longest
        self._left, self._is_whole = _MAX_LOOKUPS, False
        self._lock = ForkSafeLock()
        symbols = [*byte_alphabet(), self._settings.get("unk_token")]
        self._bytes = {symbol: self._vocab[symbol] for symbol in symbols if symbol in self._vocab}
        added = {token["content"]: token["id"] for token in document["added_tokens"]}
        settings = {**self._settings, "vocab": {**added, **self._bytes}, "merges": []}
        self._engine = engine_of({**document, "model": settings})

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, without a BOS."""
        if not self._is_whole:
            with self._lock:  # the library takes no other model while it encodes
                if not self._is_whole:
                    self._prepare(text)
                    return self._ids(text)
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._engine.encode(text, add_special_tokens=False).ids
        return ids

    def _prepare(self, text: str) -> None:
        """Give the library the tokens and merges that ``text`` needs, or everything."""
        self._left -= len(text)
        words = self._words(text) if self._left > 0 else set()
        self._left -= _LOOKUPS_PER_TEXT + sum(len(word) * min(len(word), self._longest) for word in words)
        is_whole = self._left <= 0
        vocab = self._vocab if is_whole else {part: self._vocab[part] for part in self._tokens_in(words)} | self._bytes
        merges = self._merges if is_whole else self._merges_of(vocab)
        self._engine.model = bpe_model(self._settings, vocab, [_pair(merge) for merge in merges])
        self._is_whole = is_whole

    def _words(self, text: str) -> set[str]:
        """The words of ``text``, within which the library merges."""
        self._engine.model = bpe_model(self._settings, self._bytes, [])
        encoded = self._engine.encode(text, add_special_tokens=False)
        symbols: dict[int, list[str]] = {}
        for word, symbol in zip(encoded.word_ids, encoded.tokens, strict=True):
            symbols.setdefault(word, []).append(symbol)
        return {"".join(word) for word in symbols.values()}

    def _tokens_in(self, words: Iterable[str]) -> set[str]:
        parts = {
            word[start:end]
            for word in words
            for start in range(len(word))
            for end in range(start + 2, min(len(word), start + self._longest) + 1)
        }
        return parts & self._vocab.keys()

    def _merges_of(self, vocab: Mapping[str, int]) -> Iterable[str]:
        """The merges of tokens in ``vocab``, in their order."""
        wanted = {
            f"{token[:at]} {token[at:]}"
            for token in vocab
            for at in range(1, len(token))
            if token[:at] in vocab and token[at:] in vocab
        }
        return filter(wanted.__contains__, self._merges)


def _pair(merge: str) -> tuple[str, str]:
    left, right = merge.split(" ")
    return left, right
