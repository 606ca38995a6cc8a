"""Subnormal numbers as zero in one thread, for as long as a library computes in it.

A product with a subnormal number (below 1.2e-38 in float32) takes many processors over a hundred cycles. Without this,
onnxruntime took four times as long for a token of the packaged student, and five times for a prompt. Its own setting
reaches only the thread that opens the first session of a process, and stays on there, where NumPy computes, too.

The mode lies in two bits of MXCSR (x86-64) or one of FPCR (64-bit ARM), which ``fegetenv(3)`` saves at these places::

    x86-64    7 words of the x87 unit, MXCSR              bit 15: results, bit 6: operands
    aarch64   FPCR, FPSR                                  bit 24: both
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["subnormals_as_zero"]

_PLACES = {"x86_64": (7, 1 << 15 | 1 << 6), "aarch64": (0, 1 << 24)}  # word, bits
_PLACE = _PLACES.get(platform.machine())
_Environment = ctypes.c_uint32 * 16  # twice the longest fenv_t


@contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """The mode for this thread, and afterwards the one of before; nothing on other processors than the two above."""
    if _PLACE is None:
        yield
        return
    libm = _libm()
    before, changed = _Environment(), _Environment()
    libm.fegetenv(before)
    libm.fegetenv(changed)
    word, bits = _PLACE
    changed[word] |= bits
    libm.fesetenv(changed)
    try:
        yield
    finally:
        libm.fesetenv(before)


@functools.cache
def _libm() -> ctypes.PyDLL:
    return ctypes.PyDLL(None)  # the interpreter is linked with it
