"""The elements of a GGUF string array, a window of the file at a time: a vocabulary and its merges are 200,000 strings.

A string is a u64 length and that many bytes. Where text has no zeros, eight bytes that are a number under 256 are the
length of a short string: NumPy finds those of a window at once, and each says where the next one must be. Any other
string ends the window for this reader, and is read by the caller.
"""

from __future__ import annotations

import numpy as np

__all__ = ["short_strings"]

_WINDOW = 1 << 18  # bytes
_MANY = 64  # bytes that a string takes at most, on average: a small array does not read a window
_LONG = 256
_PREFIX = 8


def short_strings(data: memoryview, at: int, limit: int) -> tuple[list[str], int]:
    """At most ``limit`` strings from ``at`` on, and the offset of the one after them.

    Args:
        data: the whole file.
        at: offset of the first string.
        limit: number of strings that the array has from there on.

    Returns:
        The strings before the first that is longer than 255 bytes, reaches beyond the window or is before an empty
        one. None where one of these has a zero or is not UTF-8.
    """
    raw = np.frombuffer(data[at : at + min(_WINDOW, limit * _MANY)], np.uint8).copy()
    numbers = np.ndarray(max(raw.size - _PREFIX + 1, 0), "<u8", raw, strides=(1,))  # at each byte
    starts = np.flatnonzero(numbers < _LONG)[:limit]
    stops = starts + _PREFIX + numbers[starts].astype(np.int64)
    is_next = np.append(0, stops)[:-1] == starts
    n_strings = int(np.append(is_next & (stops <= raw.size), False).argmin())
    text = raw[: int(np.append(0, stops)[n_strings])]
    text[starts[:n_strings]] = 0
    kept = text != 0
    if np.count_nonzero(kept) != text.size - _PREFIX * n_strings:
        return [], at
    kept[starts[:n_strings]] = True  # one zero before each string: Python splits at one byte twice as fast as at eight
    try:
        return str(text[kept].data, "utf-8").split("\0")[1:], at + text.size
    except UnicodeDecodeError:
        return [], at
