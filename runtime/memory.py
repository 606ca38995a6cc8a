"""Memory as a contract: what a model needs, and a refusal with numbers before anything large is read."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sprat.devices.plan.footprint import Footprint
from sprat.errors import DoesNotFitError, InputError

__all__ = ["available_bytes", "parse_memory", "refusal"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_CONTEXT_STEP = 256  # a shorter context is proposed in steps of this many tokens


def parse_memory(memory: int | str) -> int:
    """Bytes from a number, or from text such as ``"3GB"`` (powers of ten) or ``"3GiB"`` (powers of two).

    Raises:
        InputError: it is no positive amount of memory.

    Example:
        >>> parse_memory("1.5GB"), parse_memory("2 MiB"), parse_memory(4096)
        (1500000000, 2097152, 4096)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?|)B?\s*", str(memory).upper())
    n_bytes = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if n_bytes <= 0:
        raise InputError(f"memory: found {memory!r}, expected bytes above 0 or text such as '3GB' or '2.5GiB'")
    return n_bytes


def available_bytes() -> int:
    """Memory that this machine could hand out now, its page cache included."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists() and (found := re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def refusal(footprint: Footprint, memory_bytes: int, subject: str) -> DoesNotFitError | None:
    """The error for a model that needs more than ``memory_bytes``, with numbers and a remedy; ``None`` when it fits.

    Args:
        footprint: what it needs.
        memory_bytes: what it may use.
        subject: who needs it, for the message.
    """
    if footprint.total_bytes <= memory_bytes:
        return None
    return DoesNotFitError(
        f"{subject} needs {_show(footprint.total_bytes)} (weights {_show(footprint.weight_bytes)}, cache for "
        f"{footprint.context} tokens {_show(footprint.cache_bytes)}, buffers {_show(footprint.buffer_bytes)}) "
        f"but may use {_show(memory_bytes)}; {_remedy(footprint, memory_bytes)}"
    )


def _remedy(footprint: Footprint, memory_bytes: int) -> str:
    """A shorter context where that is enough, otherwise fewer bits."""
    left = memory_bytes - footprint.weight_bytes - footprint.buffer_bytes
    context = max(0, left) // footprint.cache_bytes_per_token // _CONTEXT_STEP * _CONTEXT_STEP
    if context:
        return f"load it with context={context}, or give it more memory"
    return "give it more memory, or take fewer bits (sprat quantize --quant int4)"


def _show(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 10**8 else f"{n_bytes / 1e6:.2f} MB"
