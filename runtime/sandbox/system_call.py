"""Calls of the C library that Python has no function for; a failure is an ``OSError``."""

from __future__ import annotations

import ctypes
import os
from typing import Any

__all__ = ["checked", "libc"]

libc: Any = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> int:
    """``result``, which is not negative.

    Raises:
        OSError: it is negative; with the reason that the C library left.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
