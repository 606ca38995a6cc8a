"""Parts of a ``config.json`` that architectures share, read from its :class:`~sprat.runtime.arch.fields.Fields`."""

from __future__ import annotations

from typing import Any

from sprat.runtime.arch.attention import GroupedAttentionSpec
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.rope import FrequencyFactors, RopeSpec, YarnScaling, llama3_factors
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["common_from_config", "grouped_from_config", "rope_from_config"]

_ROPE_HARMLESS = frozenset({"finetuned"})
_MAX_HEAD_DIM = 1 << 16  # a hundred times what is published: there will be an array of this length


def grouped_from_config(
    fields: Fields, architecture: str, *, interleaved: bool, bias: bool = False, qk_norm: bool = False
) -> ModelSpec:
    """A model of grouped-query attention and dense MLPs: Llama and its relatives.

    Args:
        fields: of ``config.json``.
        architecture: ``general.architecture``.
        interleaved: whether RoPE rotates pairs (2i, 2i+1) in GGUF, rather than halves.
        bias: biases on queries, keys and values.
        qk_norm: RMSNorm of each head of queries and keys.
    """
    n_heads, hidden_size = fields.size("num_attention_heads"), fields.size("hidden_size")
    attention = GroupedAttentionSpec(
        n_heads=n_heads,
        n_kv_heads=fields.size("num_key_value_heads", n_heads),
        head_dim=fields.size("head_dim", hidden_size // n_heads),
        bias=bias,
        qk_norm=qk_norm,
    )
    return ModelSpec(
        architecture=architecture,
        attention=attention,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope=rope_from_config(fields, attention.head_dim, interleaved=interleaved),
        **common_from_config(fields),
    )


def common_from_config(fields: Fields) -> dict[str, Any]:
    """The fields of :class:`~sprat.runtime.arch.spec.ModelSpec` that every config spells alike."""
    return {
        "vocab_size": fields.size("vocab_size"),
        "hidden_size": fields.size("hidden_size"),
        "n_layers": fields.size("num_hidden_layers"),
        "intermediate_size": fields.size("intermediate_size"),
        "max_context": fields.size("max_position_embeddings"),
        "tied_embeddings": fields.flag("tie_word_embeddings", False),
    }


def rope_from_config(fields: Fields, dim: int, *, interleaved: bool) -> RopeSpec:
    """The classic form (``rope_theta``, ``rope_scaling``) or that of transformers 5 (``rope_parameters``)."""
    name = "rope_parameters" if "rope_parameters" in fields else "rope_scaling"
    scaling = fields.nested(name)
    holder = scaling if "rope_theta" in scaling else fields
    theta = holder.number("rope_theta", 10000.0)
    scaling.must_be({"partial_rotary_factor": [1.0]})
    scaling.ignore("type" if "rope_type" in scaling else "rope_type")  # transformers 5 writes both
    read = scaling.choice("rope_type" if "rope_type" in scaling else "type", _ROPE_KINDS, "default")
    rope = RopeSpec(dim=dim, theta=theta, interleaved=interleaved, scaling=read(scaling, dim, theta))
    scaling.finish(_ROPE_HARMLESS)
    return rope


def _no_scaling(scaling: Fields, dim: int, theta: float) -> None:
    return None


def _yarn(scaling: Fields, dim: int, theta: float) -> YarnScaling:
    scaling.must_be({"truncate": [True]})
    scaling.ignore("attn_factor")  # of R1-0528-Qwen3-8B: transformers reads attention_factor only, as does llama.cpp
    if ("mscale" in scaling) != ("mscale_all_dim" in scaling):
        scaling.complain("mscale", "and mscale_all_dim are ambiguous one without the other")
    return YarnScaling(
        factor=scaling.number("factor"),
        original_max_position_embeddings=scaling.size("original_max_position_embeddings"),
        beta_fast=scaling.number("beta_fast", 32.0),
        beta_slow=scaling.number("beta_slow", 1.0),
        mscale=scaling.number("mscale", 1.0),
        mscale_all_dim=scaling.number("mscale_all_dim") if "mscale_all_dim" in scaling else 0.0,
    )


def _llama3(scaling: Fields, dim: int, theta: float) -> FrequencyFactors:
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    if not low < high:
        scaling.complain("high_freq_factor", f"is {high}; expected more than low_freq_factor, {low}")
        high = low + 1
    if dim > _MAX_HEAD_DIM:
        scaling.complain("rope_type", f"applies to {dim} elements of a head; expected at most {_MAX_HEAD_DIM}")
        dim = _MAX_HEAD_DIM
    return llama3_factors(
        dim,
        theta,
        factor=scaling.number("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_context=scaling.size("original_max_position_embeddings"),
    )


_ROPE_KINDS = {"default": _no_scaling, "yarn": _yarn, "llama3": _llama3}
