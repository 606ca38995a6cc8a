"""llama.cpp's published speeds on a Raspberry Pi 5, and what counts predict for them: the only check against boards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["PUBLISHED", "Published", "predicted"]

_CYCLES_PER_SECOND = 4 * 2.4e9  # four Cortex-A76
_READ_BYTES = 11.4e9  # per second, as the profile rpi5-8gb has it


@dataclass(frozen=True, slots=True)
class Published:
    """One row of a table that somebody measured.

    Attributes:
        model: with its quantization.
        format: block format of most of its weights.
        path: of llama.cpp: ``plain``, or ``repacked`` weights.
        n_tokens: 1 for decode, more for a prompt.
        weights: that one token multiplies, in millions.
        n_bytes: that decoding one token reads, in millions.
        tokens_per_second: as published.
        source: where.
    """

    model: str
    format: str
    path: str
    n_tokens: int
    weights: float
    n_bytes: float
    tokens_per_second: float
    source: str


_LFM = "llama.cpp pull requests 19356 and 19360"
_GEERLING = "geerlingguy/ai-benchmarks 7 and README"
# LFM2-700M: 742 million weights, of which a prompt multiplies the head's 101 million once only.
PUBLISHED = (
    Published("LFM2-700M Q5_K", "Q5_K", "repacked", 512, 642, 0, 89.7, _LFM),
    Published("LFM2-700M Q5_K", "Q5_K", "plain", 512, 642, 0, 47.1, _LFM),
    Published("LFM2-700M Q6_K", "Q6_K", "repacked", 512, 642, 0, 105.8, _LFM),
    Published("LFM2-700M Q6_K", "Q6_K", "plain", 512, 642, 0, 39.9, _LFM),
    Published("LFM2-700M Q5_K", "Q5_K", "repacked", 1, 742, 510, 21.3, _LFM),
    Published("LFM2-700M Q5_K", "Q5_K", "plain", 1, 742, 510, 21.6, _LFM),
    Published("LFM2-700M Q6_K", "Q6_K", "repacked", 1, 742, 609, 17.8, _LFM),
    Published("LFM2-700M Q6_K", "Q6_K", "plain", 1, 742, 609, 19.1, _LFM),
    Published("Llama-3.2-3B Q4_K_M", "Q4_K", "repacked", 1, 3213, 2020, 4.88, _GEERLING),
    Published("Llama-3.1-8B Q4_K_M", "Q4_K", "repacked", 1, 7505, 4620, 2.17, _GEERLING),
    Published("Llama-2-13B Q4_0", "Q4_0", "repacked", 1, 12852, 7280, 1.36, _GEERLING),
    Published("R1-Distill-Qwen-14B Q4_K_M", "Q4_K", "repacked", 1, 13991, 8550, 1.20, _GEERLING),
)


def predicted(row: Published, cycles_per_product: Callable[[str, str, int], float]) -> float:
    """Tokens per second: the slower of reading the weights and of multiplying them.

    Args:
        row: what to predict.
        cycles_per_product: of llama.cpp's kernel for (format, path, tokens).
    """
    computing = row.weights * 1e6 * cycles_per_product(row.format, row.path, row.n_tokens) / _CYCLES_PER_SECOND
    return 1 / max(computing, row.n_bytes * 1e6 / _READ_BYTES)
