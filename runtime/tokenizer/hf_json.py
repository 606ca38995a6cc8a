"""The tokenizer.json that the ``tokenizers`` library runs: the checkpoint's, or one rebuilt from a vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from typing import Any

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.added_tokens import AddedToken
from sprat.runtime.tokenizer.pretokenizers import get_pre_tokenizer
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, TokenType, Vocabulary, looks_special, split_merge

__all__ = [
    "build",
    "build_without_merges",
    "composes_only",
    "mergeable",
    "prefixes_first_word",
    "prepare",
    "with_merges",
]

_Json = dict[str, Any]
_MAX_SQUARES = 1 << 26  # sum of squared lengths, the characters of all splits: 256,000 tokens of 16 characters
_SPLITS_PER_TOKEN = 8  # published vocabularies have two or three on average
_MAX_FEW_SPLITS = 1 << 14  # in addition, for small vocabularies
_MERGED = {TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED}  # by SentencePiece BPE in llama.cpp
_SPACE = "\u2581"  # SentencePiece's visible space


def prepare(document: _Json) -> _Json:
    """The same tokenizer with all control tokens marked special, and without what sprat does itself or never does.

    sprat adds the special tokens around a text and decodes ids; the steps of the file that do so are left out. So are
    padding, truncation and dropout.
    """
    entries = document.get("added_tokens") or []
    added = [{**token, "special": token["special"] or looks_special(token["content"])} for token in entries]
    model = {**document["model"], "dropout": None}
    prepared = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": document.get("normalizer"),
        "pre_tokenizer": document.get("pre_tokenizer"),
        "model": model,
    }
    if prefixes_first_word(document):
        prepared["pre_tokenizer"] = {**document["pre_tokenizer"], "prepend_scheme": "never"}
    return prepared


def prefixes_first_word(document: _Json) -> bool:
    """Whether a space is added before the text as a whole (``prepend_scheme`` "first").

    :class:`~sprat.runtime.tokenizer.tokenizer.Tokenizer` adds it, since it encodes a text in parts.
    """
    pre = document.get("pre_tokenizer") or {}
    return bool(pre.get("type") == "Metaspace" and pre.get("prepend_scheme") == "first")


def composes_only(document: _Json) -> bool:
    """Whether the tokenizer changes no text that is composed (NFC): it has no normalizer, an empty one, or NFC."""
    normalizer = document.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    return all(step.get("type") in {None, "NFC"} for step in steps)


def build(vocabulary: Vocabulary, added: Iterable[AddedToken] = ()) -> _Json:
    """A tokenizer.json that gives the same ids as llama.cpp with this vocabulary.

    Args:
        vocabulary: the tokens and their types.
        added: tokens with flags that a vocabulary does not have (``lstrip``, ``rstrip``, ``single_word``).
    """
    if vocabulary.model is TokenizerModel.SENTENCEPIECE_BPE:
        return {**_sentencepiece(vocabulary), **_added(vocabulary, added), **_post_processor(vocabulary)}
    document = build_without_merges(vocabulary, added)
    return with_merges(document, [split_merge(merge) for merge in vocabulary.merges])


def build_without_merges(vocabulary: Vocabulary, added: Iterable[AddedToken] = ()) -> _Json:
    """The same for byte-level BPE, without the merges, which are most of it."""
    return {**_byte_level(vocabulary), **_added(vocabulary, added), **_post_processor(vocabulary)}


def with_merges(document: _Json, merges: list[list[str]]) -> _Json:
    """``document`` with pairs as its merges."""
    return {**document, "model": {**document["model"], "merges": merges}}


def _byte_level(vocabulary: Vocabulary) -> _Json:
    pre = get_pre_tokenizer(vocabulary.pre)
    return {
        "version": "1.0",
        "normalizer": {"type": pre.normalizer} if pre.normalizer else None,
        "pre_tokenizer": pre.json(),
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE",
            "ignore_merges": pre.ignore_merges,
            "vocab": vocabulary.ids,
            "merges": [],
        },
    }


def _added(vocabulary: Vocabulary, added: Iterable[AddedToken]) -> _Json:
    control = (TokenType.CONTROL, TokenType.UNKNOWN)
    flagged = {token.text: token for token in added if token.has_flags}
    entries = []
    for index in vocabulary.unusual:
        text, kind = vocabulary.tokens[index], vocabulary.types[index]
        if kind in control or kind is TokenType.USER_DEFINED:
            token, special = flagged.get(text), kind in control
            token = replace(token, special=special) if token else AddedToken(id=index, text=text, special=special)
            entries.append(token.json())
    return {"added_tokens": entries}


def _post_processor(vocabulary: Vocabulary) -> _Json:
    """BOS before the text, for programs that encode with the file's own rules."""
    if not vocabulary.add_bos or vocabulary.bos_id is None:
        return {}
    text = vocabulary.tokens[vocabulary.bos_id]
    sequences = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    bos = {"SpecialToken": {"id": text, "type_id": 0}}
    processor = {
        "type": "TemplateProcessing",
        "single": [bos, sequences[0]],
        "pair": [bos, sequences[0], bos, sequences[1]],
        "special_tokens": {text: {"id": text, "ids": [vocabulary.bos_id], "tokens": [text]}},
    }
    return {"post_processor": processor}


def mergeable(vocabulary: Vocabulary) -> frozenset[str]:
    """The tokens that SentencePiece BPE merges, and merges into, in llama.cpp."""
    kinds = zip(vocabulary.tokens, vocabulary.types, strict=True)
    return frozenset(text for text, kind in kinds if kind in _MERGED)


def _splits(usable: Set[str]) -> Iterator[tuple[str, int]]:
    """Each token with every offset at which it splits into two others.

    Raises:
        TokenizerError: there are so many that they are no vocabulary's; a run of one letter has a split at each offset.
    """
    if sum(len(text) ** 2 for text in usable) > _MAX_SQUARES:
        raise TokenizerError("the tokens are far longer than those of a vocabulary; convert the model again")
    left = _SPLITS_PER_TOKEN * len(usable) + _MAX_FEW_SPLITS
    for text in usable:
        for at in range(1, len(text)):
            if text[:at] in usable and text[at:] in usable:
                left -= 1
                if left < 0:
                    raise TokenizerError(
                        f"the {len(usable)} tokens split into each other in more than {_SPLITS_PER_TOKEN} ways on "
                        "average, expected about two; convert the model again"
                    )
                yield text, at


def _sentencepiece(vocabulary: Vocabulary) -> _Json:
    """SentencePiece BPE as ranked merges: llama.cpp merges the pair whose token has the highest score, leftmost first.

    A merge is a pair, so each token appears once for every split of it into two other tokens.
    """
    ids = vocabulary.ids
    usable = mergeable(vocabulary)
    splits = [(-vocabulary.scores[ids[text]], at, text) for text, at in _splits(usable)]
    underscores = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    is_normalized = vocabulary.add_space_prefix and not vocabulary.prefix_first_only
    prefix = [{"type": "Prepend", "prepend": _SPACE}] if is_normalized else []
    first = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "first", "split": False}
    unprefix = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if vocabulary.add_space_prefix else []
    spaces = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    decoders = [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}, *unprefix]
    return {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, underscores]},
        "pre_tokenizer": first if vocabulary.prefix_first_only else None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "unk_token": None if vocabulary.unk_id is None else vocabulary.tokens[vocabulary.unk_id],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": ids,
            "merges": [[text[:at], text[at:]] for _, at, text in sorted(splits)],
        },
    }
