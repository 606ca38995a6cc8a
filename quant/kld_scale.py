"""Mean KL divergence in words.

A divergence has no scale of its own. llama.cpp publishes one: the divergences of its formats on Llama 3 8B and
Wikitext-2 (the "LLaMA 3 8b Scoreboard" in ``tools/perplexity/README.md``; formats without an imatrix). A small model
loses more in the same format, and a model reads less on a text that it knows by heart.
"""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["SCALE", "Mark", "kld_in_words"]


class Mark(NamedTuple):
    """A published divergence: the word for a smaller one, the format, and its divergence in nats."""

    word: str
    format: str
    kld: float


SCALE = (
    Mark("indistinguishable in use", "Q8_0", 0.001355),
    Mark("very good", "Q6_K", 0.005452),
    Mark("good", "Q5_K_M", 0.010762),
    Mark("usual for 4 bits", "Q4_K_M", 0.031273),
    Mark("weak for 4 bits", "Q4_0", 0.071940),
    Mark("usual for 3 bits", "Q3_K_M", 0.101913),
    Mark("usual for 2 bits", "Q2_K", 0.445132),
)
"""Llama 3 8B's formats in llama.cpp, the smallest divergence first."""


def kld_in_words(kld: float) -> str:
    """A word for a mean KL divergence in nats, and the marks of :data:`SCALE` on both sides of it.

    Example:
        >>> kld_in_words(0.02)
        'usual for 4 bits: between Q5_K_M (0.0108) and Q4_K_M (0.0313) of Llama 3 8B in llama.cpp'
    """
    if not math.isfinite(kld):
        return "broken: the model computes NaN or Inf"
    above = next((index for index, mark in enumerate(SCALE) if kld <= mark.kld), len(SCALE))
    if above == 0:
        word, place = SCALE[0].word, f"below {_mark(SCALE[0])}"
    elif above == len(SCALE):
        word, place = "damaged", f"above {_mark(SCALE[-1])}"
    else:
        word, place = SCALE[above].word, f"between {_mark(SCALE[above - 1])} and {_mark(SCALE[above])}"
    return f"{word}: {place} of Llama 3 8B in llama.cpp"


def _mark(mark: Mark) -> str:
    return f"{mark.format} ({mark.kld:.4f})"
