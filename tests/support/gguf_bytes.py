"""GGUF files built byte by byte, and malformed ones of every kind."""

import struct
from collections.abc import Callable

UINT32, BOOL, STRING, ARRAY = 4, 7, 8, 9
F32, Q4_0 = 0, 2
BIG = 1 << 60


def text(value: bytes | str) -> bytes:
    """A length, and as many bytes."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def u32_key(name: str, value: int) -> bytes:
    return key(name, UINT32, struct.pack("<I", value))


def text_key(name: str, value: str) -> bytes:
    return key(name, STRING, text(value))


def tensor(name: str, ne: tuple[int, ...], *, kind: int = F32, offset: int = 0) -> bytes:
    """A declaration; ``ne`` in ggml's order."""
    return text(name) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, kind, offset)


def gguf(
    keys: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_keys: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A file; the counts are correct unless given."""
    keys, tensors = keys or [], tensors or []
    counts = (len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def small() -> bytes:
    """A valid file: three keys, a 2 x 8 float matrix and a row of Q4_0."""
    keys = [text_key("general.architecture", "llama"), u32_key("a.number", 7), key("a.flag", BOOL, b"\1")]
    tensors = [tensor("floats", (8, 2)), tensor("blocks", (32,), kind=Q4_0, offset=64)]
    return gguf(keys, tensors, struct.pack("<16f", *range(16)) + b"\0\x3c" + bytes(range(16)))


def _with_tensors(*tensors: bytes, data_bytes: int = 128) -> bytes:
    return gguf([text_key("general.architecture", "llama")], list(tensors), bytes(data_bytes))


def _aligned_to(alignment: int) -> bytes:
    return gguf([u32_key("general.alignment", alignment)], [tensor("a", (8,))], bytes(32))


def _array(element: int, count: int, elements: bytes = b"") -> bytes:
    return gguf([key("an.array", ARRAY, struct.pack("<IQ", element, count) + elements)])


# Name of the error: (the file, a part of the message)
MALFORMED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty file"),
    "one byte": (lambda: b"G", "4 bytes of the magic number"),
    "not a gguf": (lambda: b"PK\3\4" + bytes(60), "this is not a GGUF file"),
    "version 1": (lambda: gguf(version=1), "GGUF version 1"),
    "version 4": (lambda: gguf(version=4), "GGUF version 4"),
    "big-endian": (lambda: gguf(version=3 << 24), "big-endian"),
    "2^60 tensors": (lambda: gguf(n_tensors=BIG), f"{BIG} tensors"),
    "2^60 keys": (lambda: gguf(n_keys=BIG), f"{BIG} metadata keys"),
    "a negative number of tensors": (lambda: gguf(n_tensors=(1 << 64) - 1), "18446744073709551615 tensors"),
    "37 bytes with an empty key": (lambda: gguf([key("", BOOL, b"\1")], alignment=1), "a key of 0 bytes"),
    "a key of 2^60 bytes": (lambda: gguf([struct.pack("<Q", BIG) + bytes(64)]), f"a key of {BIG} bytes"),
    "a key of 65536 bytes": (lambda: gguf([u32_key("k" * 65536, 1)]), "a key of 65536 bytes"),
    "a key that is not UTF-8": (lambda: gguf([text(b"\xff\xfe") + struct.pack("<II", UINT32, 1)]), "not UTF-8"),
    "duplicate keys": (lambda: gguf([u32_key("a.b", 1), u32_key("a.b", 2)]), "a second key 'a.b'"),
    "an unknown value type": (lambda: gguf([key("a.b", 13, bytes(8))]), "value type 13"),
    "a boolean of 2": (lambda: gguf([key("a.b", BOOL, b"\2")]), "a boolean 2"),
    "a string past the end": (lambda: gguf([key("a.b", STRING, struct.pack("<Q", BIG))]), f"{BIG} bytes of the value"),
    "a string that is not UTF-8": (lambda: gguf([key("a.b", STRING, text(b"\x80"))]), "not UTF-8"),
    "an array of 2^60 elements": (lambda: _array(UINT32, BIG), f"{BIG} elements of 'an.array'"),
    "an array of 2^60 strings": (lambda: _array(STRING, BIG), f"{BIG} elements of 'an.array'"),
    "an array string past the end": (lambda: _array(STRING, 2, text("a") + struct.pack("<Q", BIG)), "string 1 of"),
    "an array string that is not UTF-8": (lambda: _array(STRING, 2, text("a") + text(b"\xc3")), "not UTF-8"),
    "an array of arrays": (lambda: _array(ARRAY, 1, bytes(32)), "an array of arrays"),
    "alignment 0": (lambda: _aligned_to(0), "general.alignment is 0"),
    "alignment 3": (lambda: _aligned_to(3), "general.alignment is 3"),
    "an alignment that is text": (lambda: gguf([text_key("general.alignment", "32")]), "general.alignment is '32'"),
    "an endless tensor name": (lambda: gguf(tensors=[struct.pack("<Q", BIG) + bytes(64)]), "the name of a tensor"),
    "duplicate tensors": (
        lambda: _with_tensors(tensor("a", (8,)), tensor("a", (8,), offset=32)),
        "a second tensor 'a'",
    ),
    "no dims": (lambda: _with_tensors(tensor("a", ()) + bytes(8)), "'a' with 0 dims"),
    "five dims": (lambda: _with_tensors(tensor("a", (1, 1, 1, 1, 1))), "'a' with 5 dims"),
    "2^31 dims": (
        lambda: _with_tensors(text("a") + struct.pack("<I", 1 << 31) + bytes(64)),
        "'a' with 2147483648 dims",
    ),
    "a dim of 0": (lambda: _with_tensors(tensor("a", (8, 0))), "'a' with dims (8, 0)"),
    "dims whose product overflows": (lambda: _with_tensors(tensor("a", (1 << 32, 1 << 32))), "4294967296, 4294967296"),
    "an unknown tensor type": (lambda: _with_tensors(tensor("a", (8,), kind=99)), "type 99"),
    "a removed tensor type": (lambda: _with_tensors(tensor("a", (32,), kind=4)), "type 4"),
    "half a block": (lambda: _with_tensors(tensor("a", (16,), kind=Q4_0)), "16"),
    "a misaligned tensor": (lambda: _with_tensors(tensor("a", (8,), offset=8)), "'a' starts at byte"),
    "overlapping tensors": (
        lambda: _with_tensors(tensor("a", (16,)), tensor("b", (8,), offset=32)),
        "'b' at byte 192 overlaps 'a', which ends at 224",
    ),
    "a tensor past the end": (
        lambda: _with_tensors(tensor("a", (8, 16))),
        "extend past the file's 256 bytes: 'a' to byte 640",
    ),
    "an offset of 2^60": (lambda: _with_tensors(tensor("a", (8,), offset=BIG)), "1 of 1 tensors extend past the file"),
    "one part of several": (
        lambda: gguf([key("split.count", 2, struct.pack("<H", 3))], alignment=1),
        "a part of a model in 3 files",
    ),
}
