"""``parse_memory``: amounts of memory in user input."""

from __future__ import annotations

import re

from sprat.errors import InputError

__all__ = ["parse_memory"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_MOST = 2**62  # what an offset in a file can be


def parse_memory(memory: int | str, what: str = "memory") -> int:
    """Bytes from a number, or from text such as ``"3GB"`` (powers of ten) or ``"3GiB"`` (powers of two).

    Raises:
        InputError: not a positive amount of memory.

    Example:
        >>> parse_memory("1.5GB"), parse_memory("2 MiB"), parse_memory(4096)
        (1500000000, 2097152, 4096)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?|)B?\s*", str(memory).upper())
    n_bytes = float(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= n_bytes <= _MOST:
        raise InputError(f"{what}: found {memory!r:.40}, expected bytes above 0 or text such as '3GB' or '2.5GiB'")
    return int(n_bytes)
