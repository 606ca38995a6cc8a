"""``Tokenizer``: text to token ids and back, from a checkpoint's tokenizer.json or from a GGUF's metadata.

The merging is done by Hugging Face's ``tokenizers``. Around it stand two rules: exactly one BOS, and special tokens
that a user typed stay text.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sprat.errors import PromptError, TokenizerError
from sprat.runtime.tokenizer.hf_files import TokenizerFiles, read_vocabulary
from sprat.runtime.tokenizer.hf_json import build, prefixes_first_word, prepare
from sprat.runtime.tokenizer.special_tokens import SpecialTokens
from sprat.runtime.tokenizer.stream_decoder import StreamDecoder
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, TokenType, Vocabulary

__all__ = ["Tokenizer"]

_VISIBLE = ("<think>", "</think>")  # shown in decoded text even where a checkpoint marks them special


class Tokenizer:
    """A vocabulary and the engine that merges bytes into its tokens.

    Args:
        vocabulary: Every token by id.
        document: The tokenizer.json that the engine runs; None for ids only.

    Attributes:
        vocabulary: The same.
        special: What is structure in a rendered template.

    Example:
        >>> tokenizer = Tokenizer.from_file("DeepSeek-V2-Lite-Chat/tokenizer.json")  # doctest: +SKIP
        >>> tokenizer.decode(tokenizer.encode("café", add_bos=True))  # doctest: +SKIP
        'café'
    """

    def __init__(self, vocabulary: Vocabulary, document: dict[str, Any] | None) -> None:
        self.vocabulary = vocabulary
        self.special = SpecialTokens(vocabulary.control_ids())
        self._engine = None if document is None else _engine(document)
        self._space_first = document is not None and prefixes_first_word(document)

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """From a tokenizer.json or tokenizer.model, or the directory that holds one, and the configs beside it.

        Raises:
            TokenizerError: the file cannot be read, or is of a kind that sprat does not know.
        """
        return cls.from_files(TokenizerFiles(path))

    @classmethod
    def from_files(cls, files: TokenizerFiles) -> Tokenizer:
        """From files that were read already; otherwise like :meth:`from_file`."""
        vocabulary = read_vocabulary(files)
        return cls(vocabulary, files.tokenizer or build(vocabulary))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """From a GGUF's metadata: its ``tokenizer.huggingface.json`` where present, else rebuilt from the token list.

        Raises:
            TokenizerError: a tokenizer that sprat does not know, or keys that contradict each other.
        """
        vocabulary = Vocabulary.from_metadata(metadata)
        if vocabulary.model is TokenizerModel.NONE:
            return cls(vocabulary, None)
        travelling = metadata.get("tokenizer.huggingface.json")
        return cls(vocabulary, _travelling(travelling, vocabulary) if travelling else build(vocabulary))

    @property
    def vocab_size(self) -> int:
        """Number of ids, unused ones included."""
        return len(self.vocabulary)

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, if the model has one."""
        return self.vocabulary.bos_id

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every token after which generation ends."""
        return self.vocabulary.end_ids

    def token_text(self, token_id: int) -> str:
        """The token as its vocabulary spells it (byte-level tokens in GPT-2's alphabet).

        Raises:
            PromptError: the id lies beyond the vocabulary.
        """
        self._check(token_id)
        return self.vocabulary.tokens[token_id]

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes that the token stands for, which may be part of a character; empty for structure.

        Raises:
            PromptError: the id lies beyond the vocabulary.
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
        table = _byte_alphabet()
        return bytes(table[c] for c in text) if all(c in table for c in text) else text.encode()

    def encode(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``.

        Args:
            text: Any string.
            add_bos: Put the BOS token first, if this model wants one and the ids do not begin with it already.
            parse_special: Whether ``<｜User｜>`` in the text is that token (a rendered template) or just these
                characters (what a user typed).

        Raises:
            TokenizerError: the file has no tokenizer.
        """
        ids = self.encode_parts(self.special.split(text) if parse_special else [text])
        return self.with_bos(ids) if add_bos else ids

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """Token ids of a text that was cut at special tokens by ``special.split``; what is text there stays text."""
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            elif part:
                spaced = self._space_first and not ids and not part.startswith((" ", "\u2581"))
                ids += self._encode_text(f" {part}" if spaced else part)
        return ids

    def with_bos(self, ids: list[int]) -> list[int]:
        """``ids`` with exactly one BOS in front, if this model wants one."""
        bos = self.bos_id
        if bos is None or not self.vocabulary.add_bos or ids[:1] == [bos]:
            return ids
        return [bos, *ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``; structure is left out, bytes that are no UTF-8 become U+FFFD.

        Raises:
            PromptError: an id lies beyond the vocabulary.
        """
        decoder = self.stream_decoder()
        return "".join([*map(decoder.feed, ids), decoder.flush()])

    def stream_decoder(self, *, continues: bool = False) -> StreamDecoder:
        """A decoder for tokens that come one by one; its pieces join to what :meth:`decode` gives.

        Args:
            continues: The tokens go on after other text, so that SentencePiece's first space is a real one.
        """
        return StreamDecoder(self.token_bytes, strip_space=self.vocabulary.add_space_prefix and not continues)

    def _encode_text(self, text: str) -> list[int]:
        if self._engine is None:
            raise TokenizerError(
                "This file has no tokenizer (tokenizer.ggml.model is 'none'): pass token ids instead of text."
            )
        ids: list[int] = self._engine.encode(text, add_special_tokens=False).ids
        return ids

    def _check(self, token_id: int) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise PromptError(f"Token id {token_id} is beyond the vocabulary: expected 0 to {self.vocab_size - 1}.")


def _engine(document: dict[str, Any]) -> Any:
    """The ``tokenizers`` engine, set so that special tokens in a text stay text."""
    import msgspec
    import tokenizers

    try:
        engine = tokenizers.Tokenizer.from_buffer(msgspec.json.encode(prepare(document)))
    except Exception as error:  # the library raises no narrower class
        raise TokenizerError(f"The tokenizer cannot be built: {error}. Convert the model again.") from error
    engine.encode_special_tokens = True
    return engine


def _travelling(text: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """The tokenizer.json inside a GGUF, once it agrees with the token list, by which the weights' rows are numbered."""
    import msgspec

    try:
        document: dict[str, Any] = msgspec.json.decode(text)
        added = {token["content"]: token["id"] for token in document["added_tokens"]}
        ids: dict[str, int] = {**document["model"]["vocab"], **added}
        wrong = [text for text, index in ids.items() if vocabulary.tokens[index : index + 1] != [text]]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise TokenizerError(f"tokenizer.huggingface.json in the GGUF is no tokenizer.json: {error!r}.") from error
    if wrong:
        sample = ", ".join(map(repr, wrong[:5]))
        raise TokenizerError(
            f"tokenizer.huggingface.json and tokenizer.ggml.tokens disagree on {len(wrong)} tokens ({sample}). "
            "Convert the model again."
        )
    return document


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: a printable character for each byte; bytes that have none of their own take U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + n): byte for n, byte in enumerate(others)}}
