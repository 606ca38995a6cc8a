"""``Vocabulary``: the tokens of a model and what each is for, as GGUF's ``tokenizer.ggml.*`` keys record them.

The neutral form between a checkpoint's files (:mod:`sprat.runtime.tokenizer.hf_files`) and a GGUF (this module reads,
:mod:`sprat.export.gguf.tokenizer_keys` writes).
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.pretokenizers import get_pre_tokenizer

__all__ = ["TokenType", "TokenizerModel", "Vocabulary", "checked_size", "end_ids", "looks_special", "split_merge"]

# texts after which llama.cpp stops, whatever the keys say: many checkpoints name only one of their end tokens
_END_OF_GENERATION = frozenset({
    "<｜end▁of▁sentence｜>",
    "<|EOT|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
})  # fmt: skip

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_LONGEST = 1024  # characters of a token; the longest published ones are runs of 128 spaces
_LARGEST = 1 << 22  # tokens; the largest published vocabularies have 262,144


class TokenizerModel(enum.StrEnum):
    """Values of ``tokenizer.ggml.model`` that sprat knows."""

    BYTE_LEVEL_BPE = "gpt2"
    SENTENCEPIECE_BPE = "llama"
    NONE = "none"  # a file without a tokenizer: token ids only


class TokenType(enum.IntEnum):
    """Values of ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # structure, never text that a user typed
    USER_DEFINED = 4  # text that is always one token: ``<think>``
    UNUSED = 5
    BYTE = 6  # ``<0x0A>`` of SentencePiece


def looks_special(text: str) -> bool:
    """Whether a token is structure though its file does not say so (``<｜User｜>``), by llama.cpp's rule."""
    return text == "<pad>" or (text.startswith(("<|", "<｜")) and text.endswith(("|>", "｜>")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Every token by id, with its type, and the ids that mean something.

    ``end_ids`` is the whole set after which generation stops; ``eos_id`` the one that the file names first.
    """

    model: TokenizerModel
    tokens: list[str]
    types: list[TokenType]
    pre: str = ""
    merges: list[str] = field(default_factory=list)  # "left right", spaces inside a part written as Ġ
    scores: list[float] = field(default_factory=list)  # SentencePiece only
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    pad_id: int | None = None
    end_ids: frozenset[int] = frozenset()
    add_bos: bool = False
    add_space_prefix: bool = False

    def __len__(self) -> int:
        return len(self.tokens)

    def control_ids(self) -> dict[str, int]:
        """Ids of the tokens that no user may type, by their texts."""
        kinds = (TokenType.CONTROL, TokenType.UNKNOWN)
        rows = zip(self.tokens, range(len(self)), self.types, strict=True)
        return {text: index for text, index, kind in rows if kind in kinds}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary that a GGUF's metadata describes; a missing key means what it means to llama.cpp.

        Raises:
            TokenizerError: a tokenizer that sprat does not know, or keys that contradict each other.
        """
        try:
            vocabulary = cls._from_keys(metadata)
        except TokenizerError:
            raise
        except (TypeError, ValueError) as error:
            raise TokenizerError(f"GGUF metadata: a tokenizer key has a value of the wrong type ({error}).") from error
        vocabulary.check("GGUF metadata")
        return vocabulary

    @classmethod
    def _from_keys(cls, metadata: Mapping[str, Any]) -> Vocabulary:
        model = _model(metadata)
        if model is TokenizerModel.NONE:
            key = f"{metadata.get('general.architecture')}.vocab_size"
            size = checked_size(int(metadata.get(key, metadata.get("vocab_size", 0))), "GGUF metadata")
            return cls(model=model, tokens=[f"[PAD{index}]" for index in range(size)], types=[TokenType.UNUSED] * size)
        tokens = [str(token) or f"[EMPTY_{index}]" for index, token in enumerate(_array(metadata, "tokens"))]
        kinds = metadata.get("tokenizer.ggml.token_type")
        types = [TokenType.NORMAL] * len(tokens) if kinds is None else [_token_type(kind) for kind in kinds]
        pre = str(metadata.get("tokenizer.ggml.pre") or "default") if model is TokenizerModel.BYTE_LEVEL_BPE else ""
        is_spm = model is TokenizerModel.SENTENCEPIECE_BPE
        bos_id = _id(metadata, "bos", len(tokens), 1 if is_spm else None)
        adds_bos = is_spm or get_pre_tokenizer(pre).add_bos
        return cls(
            model=model,
            tokens=tokens,
            types=types,
            pre=pre,
            merges=[] if is_spm else [str(merge) for merge in _array(metadata, "merges")],
            scores=[float(score) for score in _array(metadata, "scores")] if is_spm else [],
            bos_id=bos_id,
            eos_id=_id(metadata, "eos", len(tokens), 2 if is_spm else None),
            unk_id=_id(metadata, "unknown", len(tokens), 0 if is_spm else None),
            pad_id=_id(metadata, "padding", len(tokens), None),
            end_ids=end_ids(tokens, types, [_id(metadata, kind, len(tokens), None) for kind in ("eos", "eot", "eom")]),
            add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", adds_bos and bos_id is not None)),
            add_space_prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", is_spm)),
        )

    def check(self, source: str) -> None:
        """Find every contradiction.

        Raises:
            TokenizerError: all of them, in one message.
        """
        problems = []
        if len(self.types) != len(self.tokens):
            problems.append(f"{len(self.types)} token types for {len(self.tokens)} tokens")
        if self.scores and len(self.scores) != len(self.tokens):
            problems.append(f"{len(self.scores)} scores for {len(self.tokens)} tokens")
        if len(set(self.tokens)) != len(self.tokens):
            twice = [text for text, count in Counter(self.tokens).items() if count > 1]
            problems.append(f"{len(twice)} tokens appear more than once: {', '.join(map(repr, twice[:5]))}")
        longest = max(map(len, self.tokens), default=0)
        if longest > _LONGEST:
            problems.append(f"a token of {longest} characters, expected at most {_LONGEST}")
        rows = zip(self.tokens, self.types, strict=False)
        odd = [text for text, kind in rows if kind is TokenType.BYTE and not _BYTE.fullmatch(text)]
        if odd:
            problems.append(f"{len(odd)} byte tokens that are not written as <0x0A>: {', '.join(map(repr, odd[:5]))}")
        if self.add_bos and self.bos_id is None:
            problems.append("add_bos_token is true, but there is no bos_token_id")
        if problems:
            raise TokenizerError(
                f"{source}: the vocabulary contradicts itself: {'; '.join(problems)}. Convert the model again."
            )


def split_merge(merge: str) -> list[str]:
    """The two parts of a merge: cut at its first space, but not at its first character, which may be one."""
    at = merge.find(" ", 1)
    return [merge[:at], merge[at + 1 :]]


def checked_size(size: int, source: object) -> int:
    """``size``, if it can be the size of a vocabulary.

    Raises:
        TokenizerError: it is far larger than any.
    """
    if not 0 <= size <= _LARGEST:
        raise TokenizerError(f"{source}: a vocabulary of {size} tokens; expected at most {_LARGEST}.")
    return size


def end_ids(tokens: list[str], types: list[TokenType], named: Iterable[int | None]) -> frozenset[int]:
    """The named ids, and every control token whose text is known to end a turn."""
    known = {
        index
        for index, (text, kind) in enumerate(zip(tokens, types, strict=False))
        if kind is TokenType.CONTROL and text in _END_OF_GENERATION
    }
    return frozenset(known | {index for index in named if index is not None})


def _model(metadata: Mapping[str, Any]) -> TokenizerModel:
    name = metadata.get("tokenizer.ggml.model", "none")
    try:
        return TokenizerModel("none" if name == "no_vocab" else name)
    except ValueError:
        known = ", ".join(TokenizerModel)
        raise TokenizerError(
            f"tokenizer.ggml.model is {name!r}; sprat knows {known}. Pass token ids, or use a model of a known kind."
        ) from None


def _array(metadata: Mapping[str, Any], key: str) -> Any:
    values = metadata.get(f"tokenizer.ggml.{key}")
    if values is None or isinstance(values, (str, int, float)):
        raise TokenizerError(f"tokenizer.ggml.{key} is missing or not a list: the vocabulary cannot be rebuilt.")
    return values


def _token_type(value: Any) -> TokenType:
    try:
        return TokenType(int(value))
    except ValueError:
        return TokenType.NORMAL


def _id(metadata: Mapping[str, Any], kind: str, size: int, default: int | None) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{kind}_token_id", default)
    return int(value) if value is not None and 0 <= int(value) < size else None
