"""Counts rounded up: the blocks that hold n elements, the next offset that is a multiple of an alignment."""

from __future__ import annotations

__all__ = ["ceil_div", "round_up"]


def ceil_div(n: int, divisor: int) -> int:
    """``n / divisor``, rounded up.

    Example:
        >>> ceil_div(129, 128)
        2
    """
    return -(-n // divisor)


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``n``.

    Example:
        >>> round_up(33, 32)
        64
    """
    return ceil_div(n, multiple) * multiple
