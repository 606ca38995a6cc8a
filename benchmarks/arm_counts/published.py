"""llama.cpp's published speeds on two boards, and what counts predict for them: the only check against boards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from arm_counts.sizes import TokenCost, token_cost

__all__ = ["PUBLISHED", "Published", "predicted"]

_CYCLES_PER_SECOND = 4 * 2.4e9  # four Cortex-A76, on both boards
_READ_BYTES = {"Pi 5": 11.4e9, "RK3588": 17e9}  # per second, as the profiles rpi5-8gb and orange-pi-5-16gb have it


@dataclass(frozen=True, slots=True)
class Published:
    """One row of a table that somebody measured.

    Attributes:
        model: its name.
        mix: its quantization.
        format: block format of most of its weights.
        path: of llama.cpp: ``plain``, or ``repacked`` weights.
        n_tokens: 1 for decode, more for a prompt.
        tokens_per_second: as published.
        source: where.
        cost: of a token, where the model's shape and the mix do not give it.
        board: key of the read speeds.
        is_moe: whether experts multiply a prompt token by token.
    """

    model: str
    mix: str
    format: str
    path: str
    n_tokens: int
    tokens_per_second: float
    source: str
    cost: TokenCost | None = None
    board: str = "Pi 5"
    is_moe: bool = False


_LFM_SOURCE = "llama.cpp pull requests 19356 and 19360"
_GEERLING = "geerlingguy/ai-benchmarks 7 and README"
_MIXTURE = "geerlingguy/ai-benchmarks 47"
_POWERINFER = "PowerInfer, smallthinker/README.md; its authors' fork of llama.cpp"
# LFM2-700M, which sprat has no shape of: 742 million weights, 101 million of them the head's, and sizes of its files.
_LFM_Q5, _LFM_Q6 = TokenCost(642e6, 101e6, 510e6), TokenCost(642e6, 101e6, 609e6)
# A mix of Q3_K and smaller formats with 2.70 bits on average, which are published only as an average.
_MIXED = TokenCost(2730.5e6, 311.2e6, 3041.7e6 * 2.70 / 8)
PUBLISHED = (
    Published("LFM2-700M", "q5_k", "Q5_K", "repacked", 512, 89.7, _LFM_SOURCE, _LFM_Q5),
    Published("LFM2-700M", "q5_k", "Q5_K", "plain", 512, 47.1, _LFM_SOURCE, _LFM_Q5),
    Published("LFM2-700M", "q6_k", "Q6_K", "repacked", 512, 105.8, _LFM_SOURCE, _LFM_Q6),
    Published("LFM2-700M", "q6_k", "Q6_K", "plain", 512, 39.9, _LFM_SOURCE, _LFM_Q6),
    Published("LFM2-700M", "q5_k", "Q5_K", "repacked", 1, 21.3, _LFM_SOURCE, _LFM_Q5),
    Published("LFM2-700M", "q5_k", "Q5_K", "plain", 1, 21.6, _LFM_SOURCE, _LFM_Q5),
    Published("LFM2-700M", "q6_k", "Q6_K", "repacked", 1, 17.8, _LFM_SOURCE, _LFM_Q6),
    Published("LFM2-700M", "q6_k", "Q6_K", "plain", 1, 19.1, _LFM_SOURCE, _LFM_Q6),
    Published("Llama-3.2-3B", "q4_k_m", "Q4_K", "repacked", 1, 4.88, _GEERLING),
    Published("Llama-3.1-8B", "q4_k_m", "Q4_K", "repacked", 1, 2.17, _GEERLING),
    Published("Llama-2-13B", "q4_0", "Q4_0", "repacked", 1, 1.36, _GEERLING),
    Published("R1-Distill-Qwen-14B", "q4_k_m", "Q4_K", "repacked", 1, 1.20, _GEERLING),
    Published("Qwen3-0.6B", "q4_0", "Q4_0", "repacked", 1, 27.4, _POWERINFER),
    Published("Qwen3-1.7B", "q4_0", "Q4_0", "repacked", 1, 11.1, _POWERINFER),
    Published("Qwen3-30B-A3B", "2.70 bits", "Q3_K", "plain", 1, 7.99, _MIXTURE, _MIXED, is_moe=True),
    Published("Qwen3-30B-A3B", "2.70 bits", "Q3_K", "plain", 512, 10.91, _MIXTURE, _MIXED, is_moe=True),
    Published("Qwen3-30B-A3B", "q4_0", "Q4_0", "plain", 1, 9.07, _POWERINFER, board="RK3588", is_moe=True),
)


def predicted(row: Published, cycles_per_product: Callable[[str, str, int], float]) -> float:
    """Tokens per second: the slower of reading the weights and of multiplying them.

    Args:
        row: what to predict.
        cycles_per_product: of llama.cpp's kernel for (format, path, tokens).
    """
    cost = row.cost or token_cost(row.model, row.mix)
    is_prompt = row.n_tokens > 1
    weights = cost.weights + (0 if is_prompt else cost.head_weights)
    cycles = cycles_per_product(row.format, row.path, 1 if row.is_moe else row.n_tokens)
    reading = 0.0 if is_prompt else cost.n_bytes / _READ_BYTES[row.board]
    return 1 / max(weights * cycles / _CYCLES_PER_SECOND, reading)
