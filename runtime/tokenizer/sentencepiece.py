"""Reader of a SentencePiece ``tokenizer.model``: a protocol buffer, of which three messages are needed.

Field numbers from sentencepiece_model.proto (github.com/google/sentencepiece). Parsed here, because the library would
be a compiled dependency for this one purpose.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, TokenType, Vocabulary

__all__ = ["read_sentencepiece"]

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of ModelProto
_TEXT, _SCORE, _TYPE = 1, 2, 3  # of SentencePiece; its types have the same numbers as GGUF's
_MODEL_TYPE, _BPE, _SPACE_AS_SUFFIX, _BOS_PIECE, _EOS_PIECE = 3, 2, 24, 46, 47  # of TrainerSpec
_ENDS = {_BOS_PIECE: "<s>", _EOS_PIECE: "</s>"}  # with the names that a file without the field means
_CONTROL = TokenType.CONTROL
_CHARSMAP, _DUMMY_PREFIX, _REMOVE_SPACES = 2, 3, 4  # of NormalizerSpec


def read_sentencepiece(path: Path) -> Vocabulary:
    """The vocabulary of a BPE model. BOS and EOS are the control tokens that the file names: ``<s>``, ``</s>``.

    Raises:
        TokenizerError: the file is damaged, holds a unigram model, or is of a kind that llama.cpp does not have.
    """
    try:
        model = _message(path.read_bytes())
        trainer, normalizer = (_message(model[field][0]) for field in (_TRAINER, _NORMALIZER))
        pieces = [_message(piece) for piece in model[_PIECES]]
        tokens = [piece[_TEXT][0].decode() for piece in pieces]
        bos, eos = (trainer[field][0].decode() if trainer[field] else default for field, default in _ENDS.items())
        types = [TokenType(piece[_TYPE][0]) if piece[_TYPE] else TokenType.NORMAL for piece in pieces]
        scores = [struct.unpack("<f", piece[_SCORE][0])[0] if piece[_SCORE] else 0.0 for piece in pieces]
    except (OSError, IndexError, AttributeError, ValueError, TypeError, struct.error) as error:
        raise TokenizerError(f"{path}: not a SentencePiece model, or damaged ({error!r}); download it again") from error
    if trainer[_MODEL_TYPE] != [_BPE]:
        raise TokenizerError(
            f"{path}: a SentencePiece model that is not BPE; llama.cpp's 'llama' tokenizer supports BPE only"
        )
    if any(normalizer[_CHARSMAP]) or normalizer[_REMOVE_SPACES] != [0]:
        raise TokenizerError(
            f"{path}: the SentencePiece model normalizes text, expected one that does not: llama.cpp has no such step"
        )
    if any(trainer[_SPACE_AS_SUFFIX]) or TokenType.BYTE not in types:
        raise TokenizerError(
            f"{path}: the SentencePiece model ends words with the space or has no byte tokens, expected one that "
            "begins words with it and falls back to bytes: llama.cpp supports no other"
        )
    _check_unused(path, tokens, types)
    ids = {text: index for index, (text, kind) in enumerate(zip(tokens, types, strict=True)) if kind is _CONTROL}
    eos_id = ids.get(eos)
    return Vocabulary(
        model=TokenizerModel.SENTENCEPIECE_BPE,
        tokens=tokens,
        types=types,
        scores=scores,
        bos_id=ids.get(bos),
        eos_id=eos_id,
        unk_id=types.index(TokenType.UNKNOWN) if TokenType.UNKNOWN in types else None,
        eog_ids=frozenset(() if eos_id is None else (eos_id,)),
        add_bos=bos in ids,
        add_space_prefix=normalizer[_DUMMY_PREFIX] != [0],
    )


def _check_unused(path: Path, tokens: list[str], types: list[TokenType]) -> None:
    """SentencePiece merges into an unused piece, and splits it again; llama.cpp and transformers leave it as it is."""
    kinds = dict(zip(tokens, types, strict=True))
    parts = {text for text, kind in kinds.items() if kind in {TokenType.NORMAL, TokenType.UNUSED}}
    unused = [text for text, kind in kinds.items() if kind is TokenType.UNUSED]
    merged = [text for text in unused if any({text[:at], text[at:]} <= parts for at in range(1, len(text)))]
    if merged:
        raise TokenizerError(
            f"{path}: {len(merged)} pieces are unused and made of others ({merged[0]!r}), expected none: llama.cpp and "
            "transformers give text their ids; mark them as normal pieces, or use a model without them"
        )


def _message(data: bytes) -> defaultdict[int, list[Any]]:
    """Field number -> its values in file order: integers, or bytes."""
    fields: defaultdict[int, list[Any]] = defaultdict(list)
    for number, value in _fields(data):
        fields[number].append(value)
    return fields


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire_type, size = key & 7, {1: 8, 5: 4}.get(key & 7, 0)
        if wire_type == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire_type == 2:
            size, at = _varint(data, at)
        if size > len(data) - at or wire_type not in {1, 2, 5}:
            raise ValueError(f"field {key >> 3} of wire type {wire_type} at byte {at}")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The value of a varint and the offset after it: seven bits per byte, lowest first; the last has bit 7 clear."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
