"""``Tokenizer``: text to token ids and back, from a checkpoint's tokenizer.json or from a GGUF's metadata.

Hugging Face's ``tokenizers`` does the merging. This module adds two rules: there is exactly one BOS, and special tokens
in text from a user are encoded as plain text.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sprat.errors import PromptError, TokenizerError
from sprat.runtime.tokenizer.added_tokens import parse_entries
from sprat.runtime.tokenizer.bpe_engine import BPEEngine, in_one_piece
from sprat.runtime.tokenizer.byte_alphabet import byte_alphabet
from sprat.runtime.tokenizer.hf_files import TokenizerFiles, read_vocabulary
from sprat.runtime.tokenizer.hf_json import (
    build,
    build_without_merges,
    mergeable,
    prefixes_first_word,
    prepare,
    with_merges,
)
from sprat.runtime.tokenizer.known_steps import check_steps
from sprat.runtime.tokenizer.library_engine import LibraryEngine, library_errors
from sprat.runtime.tokenizer.scored_engine import ScoredEngine, tied_scores
from sprat.runtime.tokenizer.special_tokens import SpecialTokens
from sprat.runtime.tokenizer.stream_decoder import StreamDecoder
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, TokenType, Vocabulary, split_merge

__all__ = ["Tokenizer"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"\s+")
_LONG_TEXT = 1 << 20  # characters, which take about a second to encode
_SLICE = 1 << 16
_CUTS = 1.25  # tokens of a text in slices, relative to those of the whole, at most
_CHARS_PER_COMPOSED = 2  # NFC makes one byte of at most 1.5 characters: "ǖ" has two bytes, decomposed 3 characters
_VISIBLE = ("<think>", "</think>")  # kept in decoded text even if the checkpoint marks them special


class Tokenizer:
    """A vocabulary and the ``tokenizers`` engine that encodes text with it.

    Args:
        vocabulary: the tokens and their types.
        document: the tokenizer.json that the engine runs; ``None`` for a model without a tokenizer, which takes token
            ids only.
        merges: the merges of byte-level BPE, ``"left right"``, if the document has none.
        scores: of SentencePiece's tokens, if a list of merges cannot say which is merged first.

    Attributes:
        vocabulary: as passed.
        special: finds control tokens in a rendered chat template.

    Example:
        >>> tokenizer = engine.tokenizer
        >>> tokenizer.decode(tokenizer.encode("café", add_bos=True))
        'café'
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        document: dict[str, Any] | None,
        merges: list[str] | None = None,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        entries = parse_entries((document or {}).get("added_tokens") or [], "tokenizer.json")
        self.special = SpecialTokens(vocabulary.control_ids(), entries)
        self._engine = None if document is None else _engine(document, merges, scores, vocabulary.longest)
        self._composes = document is not None and document.get("normalizer") is not None
        self._eats_spaces = any(token.lstrip or token.rstrip for token in entries)
        self._space_first = document is not None and prefixes_first_word(document)
        spaces = () if vocabulary.prefix_first_only else (" ", "\u2581")  # SentencePiece adds one to a space, too
        self._unspaced = (*spaces, *(token.text for token in entries if not token.special))

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json or tokenizer.model, or the one in a folder, with the configs in the same folder.

        Raises:
            TokenizerError: the file cannot be read, or is not of a supported type.
        """
        return cls.from_files(TokenizerFiles(path))

    @classmethod
    def from_files(cls, files: TokenizerFiles) -> Tokenizer:
        """Like :meth:`from_file`, from files that were read already."""
        vocabulary = read_vocabulary(files)
        if files.document:
            return cls(vocabulary, files.document)
        return cls(vocabulary, build(vocabulary, files.added), scores=_tied_scores(vocabulary))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """From a GGUF's metadata: its ``tokenizer.huggingface.json`` if present, otherwise rebuilt from the token list.

        Raises:
            TokenizerError: the tokenizer is not supported, or the keys contradict each other.
        """
        vocabulary = Vocabulary.from_metadata(metadata)
        if vocabulary.model is TokenizerModel.NONE:
            return cls(vocabulary, None)
        embedded = metadata.get("tokenizer.huggingface.json")
        if embedded:
            return cls(vocabulary, *_checked_document(embedded, vocabulary))
        if vocabulary.model is TokenizerModel.SENTENCEPIECE_BPE:
            return cls(vocabulary, build(vocabulary), scores=_tied_scores(vocabulary))
        return cls(vocabulary, build_without_merges(vocabulary), vocabulary.merges)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, unused ones included."""
        return len(self.vocabulary)

    @property
    def bos_id(self) -> int | None:
        """Id of the BOS token, if the model has one."""
        return self.vocabulary.bos_id

    @property
    def eog_ids(self) -> frozenset[int]:
        """Ids of all tokens that end generation (llama.cpp: EOG)."""
        return self.vocabulary.eog_ids

    def token_text(self, token_id: int) -> str:
        """The token as the vocabulary stores it (byte-level BPE: in GPT-2's byte alphabet).

        Raises:
            PromptError: the id is outside the vocabulary.
        """
        self._check(token_id)
        return self.vocabulary.tokens[token_id]

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes of a token, which may be part of a character; empty for control and unused tokens.

        Raises:
            PromptError: the id is outside the vocabulary.
        """
        self._check(token_id)
        text, kind = self.vocabulary.tokens[token_id], self.vocabulary.types[token_id]
        if kind is TokenType.BYTE:
            return bytes([int(text[3:5], 16)])
        if kind is TokenType.USER_DEFINED or text in _VISIBLE:
            return text.encode()
        if kind is not TokenType.NORMAL:
            return b""
        if self.vocabulary.model is TokenizerModel.SENTENCEPIECE_BPE:
            return text.replace("\u2581", " ").encode()
        table = byte_alphabet()
        return bytes(table[c] for c in text) if all(c in table for c in text) else text.encode()

    def special_text(self, token_id: int) -> str:
        """The text of a token that decoding leaves out: a control, unknown or unused token; empty for others."""
        self._check(token_id)
        text, kind = self.vocabulary.tokens[token_id], self.vocabulary.types[token_id]
        is_shown = kind in {TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.BYTE} or text in _VISIBLE
        return "" if is_shown else text

    @property
    def longest_token(self) -> int:
        """Characters of a text that a token covers at most; an upper bound."""
        longest = max(1, self.vocabulary.longest)
        return longest * _CHARS_PER_COMPOSED if self._composes else longest

    def check_length(self, text: str, max_tokens: int) -> None:
        """Check that ``text`` may have at most ``max_tokens`` tokens, before it is encoded: 10 MB would take 10 s.

        Where its length allows so few, a long text is encoded in slices until they have more.

        Raises:
            PromptError: it has more.
        """
        n_chars = len(text)
        if n_chars > max_tokens * self.longest_token and self._eats_spaces:
            n_chars -= sum(len(spaces) for spaces in _SPACES.findall(text))
        if n_chars > max_tokens * self.longest_token:
            raise PromptError(
                f"the prompt has {n_chars:,} characters, the context holds {max_tokens:,} tokens of at most "
                f"{self.longest_token} characters each for prompt and answer; shorten the prompt, or load the model "
                "with a larger context"
            )
        if n_chars > _LONG_TEXT and self._slices_exceed(text, max_tokens):
            raise PromptError(
                f"the prompt has {n_chars:,} characters, more than the {max_tokens:,} tokens that the context "
                "holds for prompt and answer; shorten the prompt, or load the model with a larger context"
            )

    def _slices_exceed(self, text: str, max_tokens: int) -> bool:
        """Whether ``text`` in slices has far more tokens; the cut inside of a word adds a few."""
        n_tokens = 0
        for start in range(0, len(text), _SLICE):
            n_tokens += len(self._encode_text(text[start : start + _SLICE]))
            if n_tokens > _CUTS * max_tokens:
                return True
        return False

    def encode(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``.

        Args:
            text: any string.
            add_bos: prepend the BOS token, if the model wants one and the ids do not begin with it already.
            parse_special: encode ``<｜User｜>`` in the text as that token (for a rendered template); otherwise as
                plain text (for user input).

        Raises:
            TokenizerError: the model has no tokenizer.
            PromptError: ``text`` is not a string of valid Unicode.
        """
        if not isinstance(text, str):
            raise PromptError(f"the text is a {type(text).__name__}, expected str")
        ids = self.encode_parts(self.special.split(text) if parse_special else [text])
        return self.with_bos(ids) if add_bos else ids

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """Token ids of the parts that ``special.split`` returns: ids stay, text is encoded as plain text."""
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            elif part:
                spaced = self._space_first and not ids and not part.startswith(self._unspaced)
                ids += self._encode_text(f" {part}" if spaced else part)
        return ids

    def with_bos(self, ids: list[int]) -> list[int]:
        """``ids`` with exactly one BOS token first, if the model wants one."""
        bos = self.bos_id
        if bos is None or not self.vocabulary.add_bos or ids[:1] == [bos]:
            return ids
        return [bos, *ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids`` without control tokens; invalid UTF-8 becomes U+FFFD.

        Raises:
            PromptError: an id is outside the vocabulary, or ``ids`` are not integers.
        """
        decoder = self.stream_decoder()
        try:
            known = [operator.index(index) for index in ids]
        except TypeError as error:
            raise PromptError(f"the ids are a {type(ids).__name__}, expected integers ({error})") from error
        return "".join([*map(decoder.feed, known), decoder.flush()])

    def stream_decoder(self, *, continues: bool = False, shown: frozenset[int] = frozenset()) -> StreamDecoder:
        """A decoder for tokens one by one; its pieces join to the result of :meth:`decode`.

        Args:
            continues: the tokens continue a text, so SentencePiece's leading space is kept.
            shown: special tokens that are decoded as their text.
        """

        def bytes_of(token_id: int) -> bytes:
            return self.special_text(token_id).encode() if token_id in shown else self.token_bytes(token_id)

        def hidden_text(token_id: int) -> str:
            return "" if token_id in shown else self.special_text(token_id)

        strip_space = self.vocabulary.add_space_prefix and not continues
        return StreamDecoder(bytes_of, strip_space=strip_space, special_text=hidden_text)

    def _encode_text(self, text: str) -> list[int]:
        if self._engine is None:
            raise TokenizerError(
                "the model has no tokenizer (tokenizer.ggml.model is 'none'); pass token ids instead of text"
            )
        if match := _SURROGATE.search(text):
            raise PromptError(
                f"the text is not valid Unicode: found {_describe_surrogate(match[0])} at index {match.start()}; "
                "decode its bytes as UTF-8, with errors='replace' for damaged ones"
            )
        with library_errors("the text cannot be encoded"):
            return self._engine.encode(text)

    def _check(self, token_id: int) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise PromptError(f"token id {token_id} is outside the vocabulary, expected 0 to {self.vocab_size - 1}")


def _describe_surrogate(char: str) -> str:
    """Python writes a byte that is not UTF-8 as U+DC80 to U+DCFF; any other surrogate is half of a UTF-16 pair."""
    code = ord(char)
    return f"the byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"the lone surrogate U+{code:04X}"


def _tied_scores(vocabulary: Vocabulary) -> dict[str, float]:
    if vocabulary.model is not TokenizerModel.SENTENCEPIECE_BPE:
        return {}
    return tied_scores(vocabulary, mergeable(vocabulary))


def _engine(
    document: dict[str, Any], merges: list[str] | None, scores: Mapping[str, float] | None, longest: int
) -> LibraryEngine | BPEEngine | ScoredEngine:
    """The engine of a document and of its ``merges``; ``None`` where the document has them."""
    prepared = prepare(document)
    with library_errors("the tokenizer cannot be built"):
        if scores:
            return ScoredEngine(prepared, scores)
        if merges is None:
            return LibraryEngine(prepared)
        if in_one_piece(merges, prepared["model"]["vocab"]):
            return LibraryEngine(with_merges(prepared, list(map(split_merge, merges))))
        return BPEEngine(prepared, merges, longest)


def _checked_document(text: str, vocabulary: Vocabulary) -> tuple[dict[str, Any], list[str] | None]:
    """The tokenizer.json in a GGUF, and its merges where it is byte-level BPE.

    Its ids must be those of the token list, which index the rows of the embedding.
    """
    import msgspec

    source = "tokenizer.huggingface.json in the GGUF"
    try:
        document: dict[str, Any] = msgspec.json.decode(text)
        check_steps(document, source)
        added = {token["content"]: token["id"] for token in document.get("added_tokens") or []}
        ids: dict[str, int] = {**document["model"]["vocab"], **added}
        known = vocabulary.tokens
        mismatched = [text for text, index in ids.items() if not 0 <= index < len(known) or known[index] != text]
        merges = _texts_of(document["model"]) if vocabulary.model is TokenizerModel.BYTE_LEVEL_BPE else None
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, RecursionError, UnicodeError) as error:
        raise TokenizerError(f"{source} is not a tokenizer.json ({error!r}); convert the model again") from error
    if mismatched:
        sample = ", ".join(map(repr, mismatched[:5]))
        raise TokenizerError(
            f"tokenizer.huggingface.json and tokenizer.ggml.tokens disagree on {len(mismatched)} tokens ({sample}); "
            "convert the model again"
        )
    return document if merges is None else with_merges(document, []), merges


def _texts_of(model: dict[str, Any]) -> list[str] | None:
    """The merges of a BPE model as ``"left right"``, as older files have them; ``None`` where parts have spaces."""
    merges = model.get("merges") or []
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        return None
    texts = merges if merges and isinstance(merges[0], str) else list(map(" ".join, merges))
    return texts if set(map(str.count, texts, itertools.repeat(" "))) <= {1} else None
