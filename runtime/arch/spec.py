"""``ModelSpec``: what an architecture is, in numbers. One frozen record for every family that sprat knows.

Readers: :mod:`sprat.runtime.arch.hf_config` (a checkpoint's ``config.json``) and :mod:`sprat.runtime.arch.gguf_keys` (a
    GGUF's keys). Names are those of the reference implementations (DeepSeek-V2, arXiv 2405.04434; DeepSeek-V3, arXiv
    2412.19437).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sprat.errors import ConfigError

__all__ = [
    "Architecture",
    "FrequencyFactors",
    "GroupScore",
    "MLASpec",
    "MoESpec",
    "ModelSpec",
    "RopeSpec",
    "Scoring",
    "YarnScaling",
]


class Architecture(enum.StrEnum):
    """Families, under llama.cpp's ``general.architecture`` names."""

    LLAMA = "llama"
    QWEN2 = "qwen2"
    DEEPSEEK2 = "deepseek2"  # V2, V2-Lite, V3 and R1 share one name there


class Scoring(enum.StrEnum):
    """How router logits become scores."""

    SOFTMAX = "softmax"  # DeepSeek-V2
    SIGMOID = "sigmoid"  # DeepSeek-V3, R1


class GroupScore(enum.StrEnum):
    """How a group of experts is scored when the choice is limited to some groups."""

    MAX = "max"  # V2: group_limited_greedy
    TOP2_SUM = "top2_sum"  # V3: noaux_tc


@dataclass(frozen=True, slots=True, kw_only=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071) as DeepSeek applies it.

    cos and sin are multiplied by ``m(factor, mscale) / m(factor, mscale_all_dim)`` and, with MLA, attention scores by
    ``m(factor, mscale_all_dim) ** 2``, where ``m(f, s) = 0.1 * s * ln(f) + 1``.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0


@dataclass(frozen=True, slots=True)
class FrequencyFactors:
    """Divisors of the rotary frequencies, one per pair: Llama 3.1's scaling, as GGUF's ``rope_freqs.weight`` holds it.

    The numbers are exactly representable in float32, so that they survive the way through a file.
    """

    factors: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSpec:
    """Rotary position embedding over ``dim`` numbers per head.

    ``interleaved`` pairs neighbours (2i, 2i+1), as GGUF's llama and deepseek2 files want it; otherwise halves (i,
    i+dim/2), as qwen2.
    """

    dim: int
    theta: float
    interleaved: bool
    scaling: YarnScaling | FrequencyFactors | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MLASpec:
    """Multi-head latent attention: the cache row of a token is ``kv_lora_rank + qk_rope_head_dim`` numbers."""

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    @property
    def qk_head_dim(self) -> int:
        """Numbers per head in a query or an expanded key."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """Numbers per token and layer in the latent cache."""
        return self.kv_lora_rank + self.qk_rope_head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class MoESpec:
    """A DeepSeek mixture: which experts are chosen, and how their outputs are weighted."""

    n_routed_experts: int
    n_shared_experts: int  # one MLP of this many expert widths; 0 for none
    n_experts_per_token: int
    expert_width: int  # moe_intermediate_size
    n_dense_layers: int  # first_k_dense_replace: layers before the first mixture
    scoring: Scoring
    normalize: bool  # divide the chosen scores by their sum
    scaling: float  # routed_scaling_factor
    n_groups: int = 1
    n_groups_per_token: int = 1
    group_score: GroupScore = GroupScore.MAX
    correction_bias: bool = False  # added to the scores for the choice only

    def contradictions(self, n_layers: int) -> list[str]:
        """What cannot be true of a mixture in a model of ``n_layers``."""
        per_group = self.n_routed_experts // self.n_groups
        wrong = {
            f"{self.n_routed_experts} experts, of at most {_MOST_EXPERTS}": self.n_routed_experts > _MOST_EXPERTS,
            f"{self.n_dense_layers} dense layers of {n_layers}": self.n_dense_layers > n_layers,
            f"{self.n_routed_experts} experts in {self.n_groups} groups": self.n_routed_experts % self.n_groups > 0,
            f"{self.n_groups_per_token} chosen groups of {self.n_groups}": self.n_groups_per_token > self.n_groups,
            f"{self.n_experts_per_token} chosen experts in {self.n_groups_per_token} groups of {per_group}": (
                self.n_experts_per_token > self.n_groups_per_token * per_group
            ),
            f"the best two of a group of {per_group}": self.group_score is GroupScore.TOP2_SUM and per_group < 2,
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that decides the mathematics of a model, and nothing about how it is stored."""

    architecture: Architecture
    vocab_size: int
    hidden_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int  # of queries and keys without MLA
    intermediate_size: int  # of dense MLPs
    rms_norm_eps: float
    max_context: int
    rope: RopeSpec
    tied_embeddings: bool
    attention_bias: bool = False  # biases on q, k, v (Qwen2)
    mla: MLASpec | None = None
    moe: MoESpec | None = None

    def validate(self) -> None:
        """Check that the numbers fit together.

        Raises:
            ConfigError: they contradict each other; the message holds every contradiction.
        """
        problems = _contradictions(self) + (self.moe.contradictions(self.n_layers) if self.moe else [])
        if problems:
            raise ConfigError(f"numbers of this {self.architecture} model contradict each other: {'; '.join(problems)}")

    def is_mixture(self, layer: int) -> bool:
        """Whether ``layer`` routes tokens to experts."""
        return self.moe is not None and layer >= self.moe.n_dense_layers

    @property
    def cache_numbers_per_token(self) -> int:
        """Numbers that one token adds to the cache, over all layers."""
        per_layer = self.mla.latent_dim if self.mla else 2 * self.n_kv_heads * self.head_dim
        return self.n_layers * per_layer


_MOST_LAYERS, _MOST_EXPERTS = 1024, 4096  # ten times what is published: bounds for loops over an untrusted file


def _contradictions(spec: ModelSpec) -> list[str]:
    factors = spec.rope.scaling.factors if isinstance(spec.rope.scaling, FrequencyFactors) else None
    wrong = {
        f"{spec.n_layers} layers, of 1 to {_MOST_LAYERS}": not 1 <= spec.n_layers <= _MOST_LAYERS,
        f"{spec.n_heads} query heads over {spec.n_kv_heads} key heads": spec.n_heads % spec.n_kv_heads > 0,
        f"rope over {spec.rope.dim} numbers, an odd or empty set": spec.rope.dim % 2 > 0 or spec.rope.dim < 2,
        f"rope theta {spec.rope.theta}, which must be over 1": spec.rope.theta <= 1,
        f"rope factors for {len(factors or ())} pairs of {spec.rope.dim // 2}": (
            factors is not None
            and (len(factors) != spec.rope.dim // 2 or not all(0 < f < float("inf") for f in factors))
        ),
    }
    return [text for text, is_wrong in wrong.items() if is_wrong]
