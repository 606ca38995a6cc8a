"""GGUF keys that several architectures share, read without the architecture's prefix."""

from __future__ import annotations

import math
from typing import Any

from sprat.runtime.arch.attention import GroupedAttentionSpec
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.arch.rope import FrequencyFactors, LinearScaling, RopeSpec, YarnScaling
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.arch.tensors import ROPE_FREQS
from sprat.runtime.weights import WeightSource

__all__ = ["common_from_gguf", "grouped_from_gguf", "rope_from_gguf"]

_LINEAR_KEYS = ("rope.scaling.factor", "rope.scale_linear")
_YARN_KEYS = ("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_log_multiplier")
_LOG_MULTIPLIER = 0.1  # yarn_log_multiplier holds this times mscale_all_dim


def grouped_from_gguf(
    fields: Fields, architecture: str, weights: WeightSource, *, interleaved: bool, moe: MoESpec | None = None
) -> ModelSpec:
    """A model with grouped-query attention, and dense MLPs or experts, such as Llama and Qwen3.

    Args:
        fields: the architecture's keys.
        architecture: ``general.architecture``.
        weights: the tensors, for properties without a key.
        interleaved: whether RoPE rotates pairs (2i, 2i+1) instead of (i, i+dim/2).
        moe: the experts; ``None`` for dense MLPs.
    """
    attention = GroupedAttentionSpec.from_gguf(
        fields, bias="blk.0.attn_q.bias" in weights, qk_norm="blk.0.attn_q_norm.weight" in weights
    )
    if moe is None:
        fields.must_be({"expert_count": [0], "expert_used_count": [0]})
    return ModelSpec(
        architecture=architecture,
        n_layers=fields.size("block_count"),
        attention=attention,
        rope=rope_from_gguf(fields, attention.head_dim, weights, interleaved=interleaved),
        moe=moe,
        **common_from_gguf(fields, weights),
    )


def common_from_gguf(fields: Fields, weights: WeightSource) -> dict[str, Any]:
    """The fields of :class:`~sprat.runtime.arch.spec.ModelSpec` whose keys are the same in every architecture."""
    fields.must_be({"attention.causal": [True]})
    return {
        "hidden_size": fields.size("embedding_length"),
        "vocab_size": weights.weight("token_embd.weight").shape[0],
        "intermediate_size": fields.size("feed_forward_length"),
        "rms_norm_eps": fields.float32("attention.layer_norm_rms_epsilon"),
        "max_context": fields.size("context_length"),
        "tied_embeddings": "output.weight" not in weights,
    }


def rope_from_gguf(fields: Fields, dim: int, weights: WeightSource, *, interleaved: bool) -> RopeSpec:
    """RoPE over ``dim`` elements of a head: unscaled, linear, YaRN, or Llama 3.1's factors, which are a tensor.

    As in llama.cpp, a factor without a type is linear, and the type ``none`` overrides it.
    """
    unsupported = (  # unless 1
        "rope.scaling.attn_factor",
        "rope.scaling.yarn_attn_factor",
        "rope.scaling.yarn_ext_factor",
    )
    fields.must_be({"rope.dimension_count": [dim]} | {key: [1.0] for key in unsupported})
    read = fields.choice(
        "rope.scaling.type", {"none": _read_unscaled, "linear": _read_linear, "yarn": _read_yarn}, "linear"
    )
    theta = fields.float32("rope.freq_base", 10000.0)
    return RopeSpec(dim=dim, theta=theta, interleaved=interleaved, scaling=read(fields, weights))


def _read_unscaled(fields: Fields, weights: WeightSource) -> FrequencyFactors | None:
    fields.ignore(*_LINEAR_KEYS)
    return _read_factors(fields, weights)


def _read_linear(fields: Fields, weights: WeightSource) -> LinearScaling | FrequencyFactors | None:
    """A linear factor, which old files call ``rope.scale_linear``; 1 means none."""
    values = [fields.float32(key) for key in _LINEAR_KEYS if key in fields]
    factors = _read_factors(fields, weights)
    if not values or values[0] == 1.0:
        return factors
    if factors is not None:
        fields.problems.append(f"{ROPE_FREQS} and a linear rope.scaling.factor of {values[0]}; expected one of the two")
    return LinearScaling(factor=values[0])


def _read_factors(fields: Fields, weights: WeightSource) -> FrequencyFactors | None:
    """Llama 3.1's scaling, or none."""
    fields.ignore("rope.scaling.original_context_length", *_YARN_KEYS)
    if ROPE_FREQS not in weights:
        return None
    factors = tuple(weights.weight(ROPE_FREQS).dequantize().ravel().tolist())
    if bad := [factor for factor in factors if not 0 < factor < math.inf]:
        fields.problems.append(f"{ROPE_FREQS} holds {bad[0]}, expected finite numbers above 0")
    return FrequencyFactors(factors)


def _read_yarn(fields: Fields, weights: WeightSource) -> YarnScaling:
    """As in llama.cpp: ``yarn_log_multiplier`` sets both mscales; without it they are the paper's.

    Without it llama.cpp's deepseek2 scales scores a second time; transformers, whose config then has no
    ``mscale_all_dim``, does not. sprat computes as transformers, and the ``llamacpp`` backend refuses the file.
    """
    mscale: dict[str, float] = {}
    if "rope.scaling.yarn_log_multiplier" in fields:
        both = round(fields.float32("rope.scaling.yarn_log_multiplier") / _LOG_MULTIPLIER, 6)
        mscale = {"mscale": both, "mscale_all_dim": both}
    return YarnScaling(
        factor=fields.float32("rope.scaling.factor"),
        original_max_position_embeddings=fields.size(
            "rope.scaling.original_context_length", fields.size("context_length")
        ),
        beta_fast=fields.float32("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=fields.float32("rope.scaling.yarn_beta_slow", 1.0),
        **mscale,
    )
