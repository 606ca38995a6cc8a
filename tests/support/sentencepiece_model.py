"""SentencePiece models written by hand: protocol buffers of the few fields that a reader needs."""

import struct
from collections.abc import Sequence

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BOS_PIECE, EOS_PIECE = 46, 47  # fields of TrainerSpec

Piece = tuple[str, float, int]  # text, score, type


def bpe_model(pieces: Sequence[Piece], trainer: dict[int, str] | None = None) -> bytes:
    """A BPE model that falls back to bytes, without a normalizer: ``<unk>``, all bytes, then ``pieces``.

    ``trainer`` has texts of its spec.
    """
    first = [("<unk>", 0.0, UNKNOWN), *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256))]
    listed = b"".join(_field(1, _piece(*piece)) for piece in (*first, *pieces))
    spec = (
        _number(3, 2)
        + _number(35, 1)
        + b"".join(_field(number, text.encode()) for number, text in (trainer or {}).items())
    )
    return listed + _field(2, spec) + _field(3, _field(2, b"") + _number(3, 1) + _number(4, 0))


def _piece(text: str, score: float, kind: int) -> bytes:
    return _field(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", score) + _number(3, kind)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    more = value >> 7
    return bytes([value & 0x7F | 0x80]) + _varint(more) if more else bytes([value])
