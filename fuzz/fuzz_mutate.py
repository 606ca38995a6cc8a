"""Mutations: of bytes, of JSON and TOML documents, and of text by its tokens."""

from __future__ import annotations

import json
import random
import re
import struct
from typing import Any

__all__ = ["mutate"]

_SIZES = (0, 1, 7, 8, 31, 32, 127, 255, 256, 4095, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**60, 2**63, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    10**30,
    -(10**30),
    0.5,
    5e-324,
    1.7e308,
    -1.5,
    "",
    "x",
    "\x00",
    "\x1b[2J",
    "../../etc/passwd",
    "/dev/zero",
    "a" * 300,
    "\U0010ffff",
    "[/x]",
    [],
    {},
    [[]],
    [None],
    {"": None},
    ["x"] * 200,
)
_WORDS = (
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"for",
    b"in",
    b"if",
    b"set",
    b"macro",
    b"range(1000000)",
    b"messages",
    b"|join",
    b"|list",
    b"|tojson",
    b"[::-1]",
    b"__class__",
    b"namespace(x=1)",
    b"loop",
    b"'a'*1000000",
    b"**",
    b"\xff",
    b"\x00",
    b"9" * 400,
    b"[" * 3000,
)


def mutate(data: bytes, rng: random.Random, others: list[bytes], max_bytes: int) -> bytes:
    """``data`` changed in one to four ways; a JSON document stays one, most of the time."""
    for _ in range(rng.randint(1, 4)):
        data = (_of_document(data, rng) if rng.random() < 0.7 else None) or _of_bytes(data, rng, others)
    return data[:max_bytes]


def _of_document(data: bytes, rng: random.Random) -> bytes | None:
    """One value or key of a JSON document, or of one of its lines, replaced; ``None`` if it is none."""
    lines = data.splitlines() if data.count(b"\n{") else [data]
    index = rng.randrange(len(lines)) if lines else 0
    try:
        document = json.loads(lines[index])
    except (ValueError, RecursionError, IndexError):
        return None
    places = list(_places(document))
    if not places:
        return None
    holder, key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice([*holder, "x", ""])] = holder.pop(key)
        case 2:
            other_holder, other_key = rng.choice(places)
            holder[key] = other_holder[other_key] if _depth_is_small(other_holder) else 0
        case _:
            holder[key] = rng.choice(_VALUES)
    try:
        lines[index] = json.dumps(document).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None
    return b"\n".join(lines)


def _places(value: Any, depth: int = 0) -> Any:
    """Every (container, key) of a document, at most some of a long list."""
    if depth > 20:
        return
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for count, (key, inner) in enumerate(list(entries)):
        if count > 400:
            break
        yield value, key
        yield from _places(inner, depth + 1)


def _depth_is_small(value: Any) -> bool:
    return sum(1 for _ in _places(value)) < 300


def _of_bytes(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    if rng.random() < 0.1:
        other = rng.choice(others)
        return data[:at] + other[rng.randrange(len(other) + 1) :]
    return rng.choice(_CHANGES)(data, at, rng)


def _flip(data: bytes, at: int, rng: random.Random) -> bytes:
    return data[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]


def _delete(data: bytes, at: int, rng: random.Random) -> bytes:
    return data[:at] + data[at + rng.randint(1, 16) :]


def _insert(data: bytes, at: int, rng: random.Random) -> bytes:
    return data[:at] + rng.randbytes(rng.randint(1, 16)) + data[at:]


def _size(data: bytes, at: int, rng: random.Random) -> bytes:
    n = rng.choice((1, 2, 4, 8))
    return data[:at] + struct.pack("<Q", rng.choice(_SIZES))[:n] + data[at + n :]


def _truncate(data: bytes, at: int, _rng: random.Random) -> bytes:
    return data[:at]


def _word(data: bytes, at: int, rng: random.Random) -> bytes:
    return data[:at] + rng.choice(_WORDS) + data[at:]


def _number(data: bytes, at: int, rng: random.Random) -> bytes:
    """A number in the text after ``at``, replaced."""
    found = re.compile(rb"\d+").search(data, at)
    return data if found is None else data[: found.start()] + b"%d" % rng.choice(_SIZES) + data[found.end() :]


def _repeat(data: bytes, at: int, rng: random.Random) -> bytes:
    piece = data[rng.randrange(len(data) + 1) :][: rng.randint(1, 64)]
    return data[:at] + piece * rng.randint(1, 4) + data[at:]


_CHANGES = (_flip, _delete, _insert, _size, _truncate, _word, _number, _repeat)
