"""The tokenizer.json that the ``tokenizers`` library runs: the checkpoint's, or one rebuilt from a vocabulary."""

from __future__ import annotations

from typing import Any

from sprat.runtime.tokenizer.pretokenizers import get_pre_tokenizer
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, TokenType, Vocabulary, looks_special, split_merge

__all__ = ["build", "prefixes_first_word", "prepare"]

_Json = dict[str, Any]
_SPACE = "\u2581"  # SentencePiece's visible space


def prepare(document: _Json) -> _Json:
    """The same tokenizer with all control tokens marked special, and without padding, truncation and dropout."""
    entries = document.get("added_tokens", [])
    added = [{**token, "special": token["special"] or looks_special(token["content"])} for token in entries]
    model = {**document["model"], "dropout": None}
    prepared = {**document, "added_tokens": added, "model": model, "padding": None, "truncation": None}
    if prefixes_first_word(document):
        prepared["pre_tokenizer"] = {**document["pre_tokenizer"], "prepend_scheme": "never"}
    return prepared


def prefixes_first_word(document: _Json) -> bool:
    """Whether a space is added before the text as a whole (``prepend_scheme`` "first").

    :class:`~sprat.runtime.tokenizer.tokenizer.Tokenizer` adds it, since it encodes a text in parts.
    """
    pre = document.get("pre_tokenizer") or {}
    return bool(pre.get("type") == "Metaspace" and pre.get("prepend_scheme") == "first")


def build(vocabulary: Vocabulary) -> _Json:
    """A tokenizer.json that gives the same ids as llama.cpp with this vocabulary."""
    if vocabulary.model is TokenizerModel.SENTENCEPIECE_BPE:
        return {**_sentencepiece(vocabulary), **_added(vocabulary)}
    pre = get_pre_tokenizer(vocabulary.pre)
    return {
        "version": "1.0",
        "normalizer": {"type": pre.normalizer} if pre.normalizer else None,
        "pre_tokenizer": pre.json(),
        "model": {
            "type": "BPE",
            "ignore_merges": pre.ignore_merges,
            "vocab": {text: index for index, text in enumerate(vocabulary.tokens)},
            "merges": [split_merge(merge) for merge in vocabulary.merges],
        },
        **_added(vocabulary),
    }


def _added(vocabulary: Vocabulary) -> _Json:
    control = (TokenType.CONTROL, TokenType.UNKNOWN)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    entries = [
        {"id": index, "content": text, "special": kind in control, **flags}
        for index, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in control or kind is TokenType.USER_DEFINED
    ]
    return {"added_tokens": entries}


def _sentencepiece(vocabulary: Vocabulary) -> _Json:
    """SentencePiece BPE as ranked merges: llama.cpp merges the pair whose token has the highest score, leftmost first.

    A merge is a pair, so each token appears once for every split of it into two other tokens.
    """
    ids = {text: index for index, text in enumerate(vocabulary.tokens)}
    usable = {t for t, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind is TokenType.NORMAL}
    splits = [
        (-vocabulary.scores[ids[text]], at, text)
        for text in usable
        for at in range(1, len(text))
        if text[:at] in usable and text[at:] in usable
    ]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prefix = [{"type": "Prepend", "prepend": _SPACE}] if vocabulary.add_space_prefix else []
    return {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, replace]},
        "pre_tokenizer": None,
        "model": {
            "type": "BPE",
            "unk_token": None if vocabulary.unk_id is None else vocabulary.tokens[vocabulary.unk_id],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": ids,
            "merges": [[text[:at], text[at:]] for _, at, text in sorted(splits)],
        },
    }
