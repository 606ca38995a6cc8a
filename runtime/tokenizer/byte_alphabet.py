"""GPT-2's byte alphabet: byte-level BPE stores each byte of a token as a printable character."""

from __future__ import annotations

import functools

__all__ = ["byte_alphabet"]


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """Character -> byte: printable bytes are themselves, others are numbered from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + n): byte for n, byte in enumerate(others)}}
