"""``ModelSpec``: the dimensions of a model, of any architecture.

Readers: :mod:`sprat.runtime.arch.hf_config` (a checkpoint's ``config.json``) and :mod:`sprat.runtime.arch.gguf_keys` (a
GGUF's keys). Names are those of the reference implementations (DeepSeek-V2, arXiv 2405.04434; DeepSeek-V3, arXiv
2412.19437).
"""

from __future__ import annotations

from dataclasses import dataclass

from sprat.errors import ConfigError
from sprat.runtime.arch.attention import AttentionSpec
from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.arch.rope import FrequencyFactors, LinearScaling, RopeSpec, YarnScaling

__all__ = ["ModelSpec"]

_MAX_LAYERS = 1024  # ten times the largest published one; bounds loops over an untrusted file
_MAX_ROPE_DIM = 1 << 16  # a hundred times the largest published one; bounds the size of an array


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that determines the forward pass of a model, except its weights; nothing about its file format."""

    architecture: str  # general.architecture: the name of an sprat.runtime.arch.architecture.Architecture
    vocab_size: int
    hidden_size: int
    n_layers: int
    attention: AttentionSpec
    intermediate_size: int  # of dense MLPs
    rms_norm_eps: float
    max_context: int
    rope: RopeSpec
    tied_embeddings: bool
    moe: MoESpec | None = None
    n_mtp_layers: int = 0  # of multi-token prediction, after the others: kept in GGUF files, never run

    def validate(self) -> None:
        """Check that the dimensions fit together.

        Raises:
            ConfigError: they do not; the message has every contradiction.
        """
        problems = [
            *self._contradictions(),
            *self.attention.contradictions(),
            *(self.moe.contradictions(self.n_layers) if self.moe else []),
        ]
        if problems:
            raise ConfigError(f"dimensions of this {self.architecture} model contradict: {'; '.join(problems)}")

    def is_moe_layer(self, layer: int) -> bool:
        """Whether ``layer`` has an MoE sublayer."""
        return self.moe is not None and layer >= self.moe.n_dense_layers

    @property
    def cache_elements_per_token(self) -> int:
        """Elements of a token's KV entries, in all layers."""
        return self.n_layers * self.attention.cache_elements

    def _contradictions(self) -> list[str]:
        rope = self.rope
        factors = rope.scaling.factors if isinstance(rope.scaling, FrequencyFactors) else None
        wrong = {
            f"{self.n_layers} layers, expected 1 to {_MAX_LAYERS}": not 1 <= self.n_layers <= _MAX_LAYERS,
            f"{self.n_mtp_layers} layers of multi-token prediction, expected at most {_MAX_LAYERS}": (
                self.n_mtp_layers > _MAX_LAYERS
            ),
            f"rope over {rope.dim} elements, expected an even number up to {_MAX_ROPE_DIM}": (
                rope.dim % 2 > 0 or not 2 <= rope.dim <= _MAX_ROPE_DIM
            ),
            f"rope theta {rope.theta}, expected above 1": not 1 < rope.theta < float("inf"),
            f"{rope.scaling} is out of range": (
                isinstance(rope.scaling, YarnScaling | LinearScaling) and not rope.scaling.is_sound
            ),
            f"rope factors for {len(factors or ())} pairs of {rope.dim // 2}": (
                factors is not None
                and (len(factors) != rope.dim // 2 or not all(0 < factor < float("inf") for factor in factors))
            ),
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]
