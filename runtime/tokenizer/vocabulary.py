"""``Vocabulary``: the tokens of a model and their types, as GGUF's ``tokenizer.ggml.*`` keys store them.

:mod:`sprat.runtime.tokenizer.hf_files` makes one from a checkpoint's files. This module reads one from GGUF metadata,
and :mod:`sprat.export.gguf.tokenizer_keys` writes it.
"""

from __future__ import annotations

import enum
import itertools
import operator
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.fill_in_middle import FillInMiddle
from sprat.runtime.tokenizer.pretokenizers import get_pre_tokenizer

__all__ = [
    "EOG_KEY",
    "PREFIX_KEY",
    "TokenType",
    "TokenizerModel",
    "Vocabulary",
    "checked_size",
    "eog_ids",
    "is_known_eog",
    "looks_special",
    "split_merge",
]

# llama.cpp treats control tokens with these texts as EOG: many checkpoints name only one of their EOG tokens
_END_OF_GENERATION = frozenset({
    "<｜end▁of▁sentence｜>",
    "<|EOT|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|tool_response>",
    "<turn|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOS]",
    "[EOT]",
    "[e~[",
    "</s>",
    # padding, repository and file of fill-in-the-middle: a model writes them after what it filled in
    *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "<|file_sep|>",
})  # fmt: skip
_END_KEYS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")  # tokenizer.ggml.*_token_id of end tokens

PREFIX_KEY = "tokenizer.sprat.prefix_first_only"
EOG_KEY = "tokenizer.sprat.eog_token_ids"  # all end tokens: GGUF has keys for three

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_MAX_TOKEN_LENGTH = 1024  # characters; the longest published tokens are runs of 128 spaces
_MAX_VOCAB_SIZE = 1 << 22  # the largest published vocabularies have 262,144 tokens


class TokenizerModel(enum.StrEnum):
    """Values of ``tokenizer.ggml.model`` that sprat supports."""

    BYTE_LEVEL_BPE = "gpt2"
    SENTENCEPIECE_BPE = "llama"
    NONE = "none"  # no tokenizer: token ids only


class TokenType(enum.IntEnum):
    """Values of ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # structure of a prompt, never text
    USER_DEFINED = 4  # text that is always encoded as one token: ``<think>``
    UNUSED = 5
    BYTE = 6  # ``<0x0A>`` of SentencePiece


_TYPES: dict[Any, TokenType] = {int(kind): kind for kind in TokenType}


def looks_special(text: str) -> bool:
    """Whether a token is a control token although its file does not say so (``<｜User｜>``), by llama.cpp's rule."""
    return text == "<pad>" or (text.startswith(("<|", "<｜")) and text.endswith(("|>", "｜>")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """All tokens with their types, and the ids of special tokens.

    ``eog_ids`` are all tokens that end generation; ``eos_id`` is the one that the file names first.
    """

    model: TokenizerModel
    tokens: list[str]
    types: list[TokenType]
    pre: str = ""
    merges: list[str] = field(default_factory=list)  # "left right", with spaces inside a part written as Ġ
    scores: list[float] = field(default_factory=list)  # SentencePiece only
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    pad_id: int | None = None
    eog_ids: frozenset[int] = frozenset()
    add_bos: bool = False
    add_space_prefix: bool = False  # SentencePiece: a space before the text
    prefix_first_only: bool = False  # not after each special token, as llama.cpp does
    named_fim: FillInMiddle | None = None  # as the keys of a GGUF name them
    ids: dict[str, int] = field(default_factory=dict, repr=False, compare=False)  # of all texts; made unless given
    unusual: list[int] = field(init=False, repr=False, compare=False)  # ids of the tokens that are not NORMAL: few
    longest: int = field(init=False, repr=False, compare=False)  # characters of the longest token

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", self.ids or _ids_of(self.tokens))
        is_unusual = map(operator.is_not, self.types, itertools.repeat(TokenType.NORMAL))
        object.__setattr__(self, "unusual", list(itertools.compress(itertools.count(), is_unusual)))
        object.__setattr__(self, "longest", max(map(len, self.tokens), default=0))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def fill_in_middle(self) -> FillInMiddle | None:
        """The tokens of fill-in-the-middle; ``None`` for a model without them."""
        return self.named_fim or FillInMiddle.find(self.ids)

    def control_ids(self) -> dict[str, int]:
        """Text -> id of all control tokens: text from a user is never encoded as one."""
        kinds = (TokenType.CONTROL, TokenType.UNKNOWN)
        return {self.tokens[index]: index for index in self.unusual if self.types[index] in kinds}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary in a GGUF's metadata; missing keys have llama.cpp's defaults.

        Raises:
            TokenizerError: the tokenizer is not supported, or the keys contradict each other.
        """
        try:
            vocabulary = cls._from_keys(metadata)
        except TokenizerError:
            raise
        except (OverflowError, TypeError, ValueError) as error:
            raise TokenizerError(
                f"GGUF metadata: a tokenizer key has a value of the wrong type ({error}); convert the model again"
            ) from error
        vocabulary.check("GGUF metadata")
        return vocabulary

    @classmethod
    def _from_keys(cls, metadata: Mapping[str, Any]) -> Vocabulary:
        model = _model(metadata)
        if model is TokenizerModel.NONE:
            key = f"{metadata.get('general.architecture')}.vocab_size"
            size = checked_size(int(metadata.get(key, metadata.get("vocab_size", 0))), "GGUF metadata")
            return cls(model=model, tokens=[f"[PAD{index}]" for index in range(size)], types=[TokenType.UNUSED] * size)
        tokens = _texts(metadata, "tokens")
        if not all(tokens):
            tokens = [text or f"[EMPTY_{index}]" for index, text in enumerate(tokens)]
        types, ids = _kinds(metadata, len(tokens)), _ids_of(tokens)
        pre = str(metadata.get("tokenizer.ggml.pre") or "default") if model is TokenizerModel.BYTE_LEVEL_BPE else ""
        is_spm = model is TokenizerModel.SENTENCEPIECE_BPE
        bos_id = _id(metadata, "bos", len(tokens), 1 if is_spm else None)
        adds_bos = is_spm or get_pre_tokenizer(pre).add_bos
        return cls(
            model=model,
            tokens=tokens,
            types=types,
            pre=pre,
            merges=[] if is_spm else _texts(metadata, "merges"),
            scores=[float(score) for score in _array(metadata, "scores")] if is_spm else [],
            bos_id=bos_id,
            eos_id=_id(metadata, "eos", len(tokens), 2 if is_spm else None),
            unk_id=_id(metadata, "unknown", len(tokens), 0 if is_spm else None),
            pad_id=_id(metadata, "padding", len(tokens), None),
            eog_ids=eog_ids(ids, types, _named_ends(metadata, len(tokens))),
            add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", adds_bos and bos_id is not None)),
            add_space_prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", is_spm)),
            prefix_first_only=bool(metadata.get(PREFIX_KEY, False)),
            ids=ids,
            named_fim=FillInMiddle.find(ids, lambda key: _id(metadata, key, len(tokens), None)),
        )

    def check(self, source: str) -> None:
        """Check that the fields agree with each other.

        Args:
            source: where the vocabulary comes from, for messages.

        Raises:
            TokenizerError: all contradictions, in one message.
        """
        problems = []
        if len(self.types) != len(self.tokens):
            problems.append(f"{len(self.types)} token types for {len(self.tokens)} tokens")
        if self.scores and len(self.scores) != len(self.tokens):
            problems.append(f"{len(self.scores)} scores for {len(self.tokens)} tokens")
        if len(self.ids) != len(self.tokens):
            duplicates = [text for text, count in Counter(self.tokens).items() if count > 1]
            problems.append(f"{len(duplicates)} tokens appear more than once: {', '.join(map(repr, duplicates[:5]))}")
        if self.longest > _MAX_TOKEN_LENGTH:
            problems.append(f"a token of {self.longest} characters, expected at most {_MAX_TOKEN_LENGTH}")
        texts = [self.tokens[i] for i in self.unusual if i < len(self) and self.types[i] is TokenType.BYTE]
        invalid = [text for text in texts if not _BYTE.fullmatch(text)]
        if invalid:
            listed = ", ".join(map(repr, invalid[:5]))
            problems.append(f"{len(invalid)} byte tokens that are not written as <0x0A>: {listed}")
        if self.add_bos and self.bos_id is None:
            problems.append("add_bos_token is true, but there is no bos_token_id")
        if problems:
            raise TokenizerError(
                f"{source}: the vocabulary contradicts itself: {'; '.join(problems)}; convert the model again"
            )


def split_merge(merge: str) -> list[str]:
    """The two parts of a merge: split at the first space after the first character, which may be a space itself."""
    if not merge.startswith(" "):
        return merge.split(" ", 1)
    at = merge.find(" ", 1)
    return [merge[:at], merge[at + 1 :]]


def checked_size(size: int, source: object) -> int:
    """``size``, if it is a plausible size of a vocabulary.

    Raises:
        TokenizerError: it is negative, or far larger than any published vocabulary.
    """
    if not 0 <= size <= _MAX_VOCAB_SIZE:
        raise TokenizerError(f"{source}: found a vocabulary of {size} tokens, expected at most {_MAX_VOCAB_SIZE}")
    return size


def eog_ids(ids: Mapping[str, int], types: Sequence[TokenType], named: Iterable[int | None]) -> frozenset[int]:
    """The ``named`` ids, and all control tokens with a text that llama.cpp treats as EOG."""
    found = {text: ids[text] for text in _END_OF_GENERATION if text in ids}
    known = {text: at for text, at in found.items() if at < len(types) and types[at] is TokenType.CONTROL}
    if {"<|return|>", "<|call|>"} <= known.keys():
        known.pop("<|end|>", None)  # of gpt-oss: ends a message, after which the answer continues
    return frozenset({*known.values(), *(index for index in named if index is not None)})


def is_known_eog(text: str) -> bool:
    """Whether llama.cpp treats a control token with this text as EOG, without a key that names it."""
    return text in _END_OF_GENERATION


def _named_ends(metadata: Mapping[str, Any], size: int) -> list[int | None]:
    """The end tokens in the keys; ids that name no token are left out."""
    listed = metadata.get(EOG_KEY)
    ids = [] if listed is None else [int(index) for index in listed]
    keys = [_id(metadata, kind, size, None) for kind in _END_KEYS]
    return [*keys, *(index for index in ids if 0 <= index < size)]


def _model(metadata: Mapping[str, Any]) -> TokenizerModel:
    name = metadata.get("tokenizer.ggml.model", "none")
    try:
        return TokenizerModel("none" if name == "no_vocab" else name)
    except ValueError:
        known = ", ".join(TokenizerModel)
        raise TokenizerError(
            f"tokenizer.ggml.model is {name!r}, expected one of {known}; use a model with a supported tokenizer"
        ) from None


def _texts(metadata: Mapping[str, Any], key: str) -> list[str]:
    """The strings in a key; an array of strings is what it is."""
    values = _array(metadata, key)
    return values if isinstance(values, list) else [str(value) for value in values]


def _kinds(metadata: Mapping[str, Any], n_tokens: int) -> list[TokenType]:
    """The types of all tokens; unknown values are NORMAL."""
    values = metadata.get("tokenizer.ggml.token_type")
    if values is None:
        return [TokenType.NORMAL] * n_tokens
    array = np.asarray(values)
    types = [TokenType.NORMAL] * len(array)
    for index in np.flatnonzero(array != TokenType.NORMAL).tolist():
        types[index] = _TYPES.get(array[index].item(), TokenType.NORMAL)
    return types


def _ids_of(tokens: list[str]) -> dict[str, int]:
    return dict(zip(tokens, itertools.count(), strict=False))


def _array(metadata: Mapping[str, Any], key: str) -> Any:
    values = metadata.get(f"tokenizer.ggml.{key}")
    if values is None or isinstance(values, (str, int, float)):
        raise TokenizerError(f"tokenizer.ggml.{key} is missing or not a list; convert the model again")
    return values


def _id(metadata: Mapping[str, Any], kind: str, size: int, default: int | None) -> int | None:
    """The id in a key. One that names no token is ignored, as in llama.cpp: files write -1 or 2**32 - 1 for none."""
    value = metadata.get(f"tokenizer.ggml.{kind}_token_id")
    index = default if value is None or not 0 <= int(value) < size else int(value)
    return index if index is not None and index < size else None
