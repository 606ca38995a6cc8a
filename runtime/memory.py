"""Memory as a contract: what a model needs, and a refusal with numbers before anything large is read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sprat.errors import DoesNotFitError, InputError

__all__ = ["MemoryNeed", "parse_memory"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes that a backend needs for one model and one sequence of ``context`` tokens."""

    backend: str
    context: int
    weights_bytes: int  # as they are packed in the file
    cache_bytes: int
    working_bytes: int  # activations, logits and scratch, at most

    @property
    def total_bytes(self) -> int:
        """All three."""
        return self.weights_bytes + self.cache_bytes + self.working_bytes

    def refusal(self, memory_bytes: int, subject: str) -> DoesNotFitError | None:
        """The error for a budget of ``memory_bytes``, or ``None`` when the model fits.

        Args:
            memory_bytes: what may be used.
            subject: what does not fit, for the message.
        """
        if self.total_bytes <= memory_bytes:
            return None
        return DoesNotFitError(
            f"{subject}: the {self.backend} backend needs {_show(self.total_bytes)} "
            f"(weights {_show(self.weights_bytes)}, cache for {self.context} tokens {_show(self.cache_bytes)}, working "
            f"memory {_show(self.working_bytes)}), but may use {_show(memory_bytes)}; {self._remedy(memory_bytes)}"
        )

    def _remedy(self, memory_bytes: int) -> str:
        """A shorter context where that is enough, otherwise fewer bits."""
        left = memory_bytes - self.weights_bytes - self.working_bytes
        fits = max(0, left) * self.context // max(1, self.cache_bytes)
        if fits >= 256:
            return f"context={fits // 256 * 256} fits, or give it more memory"
        return "give it more memory, or export the model with fewer bits (sprat quantize --quant int4)"


def _show(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 10**8 else f"{n_bytes / 1e6:.2f} MB"
