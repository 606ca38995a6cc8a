"""A SentencePiece ``tokenizer.model``: a protocol buffer, of which three messages matter.

Field numbers from sentencepiece_model.proto (github.com/google/sentencepiece). Read here because the library is a
compiled dependency that would serve nothing else.
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
_TEXT, _SCORE, _TYPE = 1, 2, 3  # of SentencePiece; the types are numbered as GGUF's
_MODEL_TYPE, _BPE = 3, 2  # of TrainerSpec
_CHARSMAP, _DUMMY_PREFIX, _REMOVE_SPACES = 2, 3, 4  # of NormalizerSpec


def read_sentencepiece(path: Path) -> Vocabulary:
    """The vocabulary of a BPE model; ``<s>``, ``</s>`` and ``<unk>`` are BOS, EOS and unknown where they exist.

    Raises:
        TokenizerError: damaged; a unigram model; one that normalizes text, which llama.cpp does not.
    """
    try:
        model = _message(path.read_bytes())
        trainer, normalizer = (_message(model[field][0]) for field in (_TRAINER, _NORMALIZER))
        pieces = [_message(piece) for piece in model[_PIECES]]
        tokens = [piece[_TEXT][0].decode() for piece in pieces]
        types = [TokenType(piece[_TYPE][0]) if piece[_TYPE] else TokenType.NORMAL for piece in pieces]
        scores = [struct.unpack("<f", piece[_SCORE][0])[0] if piece[_SCORE] else 0.0 for piece in pieces]
    except (OSError, IndexError, AttributeError, ValueError, TypeError, struct.error) as error:
        raise TokenizerError(f"{path}: no SentencePiece model, or a damaged one ({error!r}).") from error
    if trainer[_MODEL_TYPE] != [_BPE]:
        raise TokenizerError(
            f"{path}: a SentencePiece model that is not BPE; llama.cpp's 'llama' tokenizer merges as BPE."
        )
    if any(normalizer[_CHARSMAP]) or normalizer[_REMOVE_SPACES] != [0]:
        raise TokenizerError(f"{path}: this SentencePiece model normalizes text, which llama.cpp does not do.")
    ids = {text: index for index, text in enumerate(tokens)}
    eos = ids.get("</s>")
    return Vocabulary(
        model=TokenizerModel.SENTENCEPIECE_BPE,
        tokens=tokens,
        types=types,
        scores=scores,
        bos_id=ids.get("<s>"),
        eos_id=eos,
        unk_id=types.index(TokenType.UNKNOWN) if TokenType.UNKNOWN in types else None,
        end_ids=frozenset(() if eos is None else (eos,)),
        add_bos="<s>" in ids,
        add_space_prefix=normalizer[_DUMMY_PREFIX] != [0],
    )


def _message(data: bytes) -> defaultdict[int, list[Any]]:
    """Field number -> its values in order: integers, or bytes."""
    fields: defaultdict[int, list[Any]] = defaultdict(list)
    for number, value in _fields(data):
        fields[number].append(value)
    return fields


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind, size = key & 7, {1: 8, 5: 4}.get(key & 7, 0)
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        if size > len(data) - at or kind not in {1, 2, 5}:
            raise ValueError(f"field {key >> 3} of kind {kind} at byte {at}")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first, the eighth bit set on all but the last."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
