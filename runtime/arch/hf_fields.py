"""Fields of ``config.json`` that several architectures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sprat.runtime.arch.attention import GroupedAttentionSpec, LatentAttentionSpec
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.moe import GroupScore, MoESpec, Scoring
from sprat.runtime.arch.rope import (
    FrequencyFactors,
    LinearScaling,
    RopeScaling,
    RopeSpec,
    YarnScaling,
    llama3_factors,
)
from sprat.runtime.arch.spec import ModelSpec

__all__ = [
    "common_from_config",
    "experts_from_config",
    "grouped_from_config",
    "latent_from_config",
    "no_sliding_windows",
    "rope_from_config",
    "sigmoid_experts_from_config",
]

_ROPE_FORMS = ("rope_parameters", "rope_scaling")
_ORIGINAL_CONTEXT = "original_max_position_embeddings"
_ROPE_HARMLESS = frozenset({"finetuned"})
_LATENT_EPS = 1e-6  # of the latent norms, whatever rms_norm_eps is: DeepSeek's code and transformers build them so
_MAX_HEAD_DIM = 1 << 16  # a hundred times the largest published one; bounds the size of an array


def grouped_from_config(
    fields: Fields, architecture: str, *, interleaved: bool, bias: bool = False, qk_norm: bool = False
) -> ModelSpec:
    """A model with grouped-query attention and dense MLPs, such as Llama and Qwen2.

    Args:
        fields: of ``config.json``.
        architecture: ``general.architecture``.
        interleaved: whether RoPE rotates pairs (2i, 2i+1) in GGUF instead of (i, i+dim/2).
        bias: whether queries, keys and values have biases.
        qk_norm: whether each head of queries and keys is normed.
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
        rms_norm_eps=fields.number("rms_norm_eps"),
        rope=rope_from_config(fields, attention.head_dim, interleaved=interleaved),
        **common_from_config(fields),
    )


def no_sliding_windows(fields: Fields, spec: ModelSpec) -> None:
    """Check that no layer has a sliding window shorter than the context.

    Qwen's are in the layers from ``max_window_layers`` on, unless ``layer_types`` says which.
    """
    fields.ignore("max_window_layers", "layer_types", "use_sliding_window", "sliding_window")
    if fields.flag("use_sliding_window", False) and _hides_nothing(fields, spec.max_context):
        fields.all_must_be("layer_types", "full_attention", "sliding_attention")
        return
    first = fields.size("max_window_layers", 0, least=0)
    if first < spec.n_layers and "layer_types" not in fields:
        fields.must_be({"use_sliding_window": [False]})
    fields.all_must_be("layer_types", "full_attention")


def _hides_nothing(fields: Fields, context: int) -> bool:
    """Whether the sliding window, if there is one, is as long as the context."""
    return "sliding_window" not in fields or fields.size("sliding_window") >= context


def latent_from_config(fields: Fields, architecture: str, *, moe: MoESpec | None = None) -> ModelSpec:
    """A model with multi-head latent attention, such as DeepSeek-V3.

    Args:
        fields: of ``config.json``.
        architecture: ``general.architecture``.
        moe: the experts; ``None`` for dense MLPs, as all of them are where no layer is left for experts.
    """
    eps = fields.number("rms_norm_eps")
    attention = LatentAttentionSpec(
        n_heads=fields.size("num_attention_heads"),
        q_lora_rank=fields.size("q_lora_rank") if "q_lora_rank" in fields else None,
        kv_lora_rank=fields.size("kv_lora_rank"),
        qk_nope_head_dim=fields.size("qk_nope_head_dim"),
        qk_rope_head_dim=fields.size("qk_rope_head_dim"),
        v_head_dim=fields.size("v_head_dim"),
        norm_eps=None if eps == _LATENT_EPS else _LATENT_EPS,
    )
    fields.must_be(
        {
            "num_key_value_heads": [attention.n_heads],
            "head_dim": [attention.qk_rope_head_dim],  # transformers 5 writes these two derived fields
            "qk_head_dim": [attention.qk_head_dim],
        }
    )
    common = common_from_config(fields)
    has_experts = moe is not None and moe.n_dense_layers < common["n_layers"]
    return ModelSpec(
        architecture=architecture,
        attention=attention,
        rms_norm_eps=eps,
        rope=rope_from_config(fields, attention.qk_rope_head_dim, interleaved=True),
        moe=moe if has_experts else None,
        **common,
    )


def sigmoid_experts_from_config(fields: Fields, *, n_dense_layers: int) -> MoESpec:
    """DeepSeek-V3's routing (noaux_tc): sigmoid scores, a bias for the selection only (arXiv 2412.19437, eq. 16)."""
    return experts_from_config(
        fields,
        n_dense_layers=n_dense_layers,
        scoring=Scoring.SIGMOID,
        normalize=fields.flag("norm_topk_prob"),
        scaling=fields.number("routed_scaling_factor"),
        n_groups=fields.size("n_group"),
        n_groups_per_token=fields.size("topk_group"),
        group_score=GroupScore.TOP2_SUM,
        correction_bias=True,
    )


def experts_from_config(
    fields: Fields, *, n_dense_layers: int, n_groups: int, n_groups_per_token: int, **rules: Any
) -> MoESpec:
    """Experts under DeepSeek's field names; ``rules`` are the routing's fields of :class:`MoESpec`."""
    fields.must_be({"moe_layer_freq": [1]})
    is_limited = n_groups_per_token != n_groups  # selecting all groups is no limit
    return MoESpec(
        n_routed_experts=fields.size("n_routed_experts"),
        n_shared_experts=fields.size("n_shared_experts", least=0),
        n_experts_per_token=fields.size("num_experts_per_tok"),
        expert_width=fields.size("moe_intermediate_size"),
        n_dense_layers=n_dense_layers,
        n_groups=n_groups if is_limited else 1,
        n_groups_per_token=n_groups_per_token if is_limited else 1,
        **rules,
    )


def common_from_config(fields: Fields) -> dict[str, Any]:
    """The fields of :class:`~sprat.runtime.arch.spec.ModelSpec` that have the same name in every config."""
    return {
        "vocab_size": fields.size("vocab_size"),
        "hidden_size": fields.size("hidden_size"),
        "n_layers": fields.size("num_hidden_layers"),
        "intermediate_size": fields.size("intermediate_size"),
        "max_context": fields.size("max_position_embeddings"),
        "tied_embeddings": fields.flag("tie_word_embeddings", False),
    }


def rope_from_config(fields: Fields, dim: int, *, interleaved: bool) -> RopeSpec:
    """RoPE in the fields of transformers 4 (``rope_theta``, ``rope_scaling``) or 5 (``rope_parameters``).

    A config may have both if they agree; transformers reads the new ones.
    """
    forms = [fields.nested(name) for name in _ROPE_FORMS if name in fields] or [fields.nested(_ROPE_FORMS[-1])]
    if not any("rope_theta" in form for form in forms):
        fields.must_not_be_null("rope_theta")
    theta = _same_number([*forms, fields], "rope_theta", 10000.0)
    fields.must_be({"partial_rotary_factor": [1.0]})
    fields.ignore(_ORIGINAL_CONTEXT)  # of scalings that do not read it
    scalings = [_scaling(fields, form, dim, theta) for form in forms]
    if any(scaling != scalings[0] for scaling in scalings):
        fields.complain("rope_parameters", "and rope_scaling contradict each other: remove the wrong one")
    return RopeSpec(dim=dim, theta=theta, interleaved=interleaved, scaling=scalings[0])


def _scaling(fields: Fields, form: Fields, dim: int, theta: float) -> RopeScaling | None:
    form.must_be({"partial_rotary_factor": [1.0]})
    form.must_not_be_null("partial_rotary_factor", "rope_theta", "rope_type", "truncate", "type", _ORIGINAL_CONTEXT)
    kinds = [form.choice(name, _ROPE_KINDS) for name in ("rope_type", "type") if name in form]
    if len(set(kinds)) > 1:
        form.complain("rope_type", "and type contradict each other: remove the wrong one")
    scaling = kinds[0](fields, form, dim, theta) if kinds else None
    form.ignore(_ORIGINAL_CONTEXT)
    form.finish(_ROPE_HARMLESS)
    return scaling


def _same_number(holders: Sequence[Fields], name: str, default: float) -> float:
    """The number ``name``, which must be the same in all ``holders`` that have it."""
    found = [holder.number(name) for holder in holders if name in holder]
    if len(set(found)) > 1:
        holders[0].complain(name, f"is {' and '.join(map(str, found))}: remove the wrong one")
    return found[0] if found else default


def _original_context(fields: Fields, scaling: Fields) -> int:
    """Phi writes it outside the scaling, where transformers prefers it; without it the context is not extended."""
    fields.must_not_be_null(_ORIGINAL_CONTEXT)
    return int(_same_number([scaling, fields], _ORIGINAL_CONTEXT, 0.0)) or fields.size("max_position_embeddings")


def _no_scaling(fields: Fields, scaling: Fields, dim: int, theta: float) -> None:
    return None


def _linear(fields: Fields, scaling: Fields, dim: int, theta: float) -> LinearScaling:
    return LinearScaling(factor=scaling.number("factor"))


def _yarn(fields: Fields, scaling: Fields, dim: int, theta: float) -> YarnScaling:
    scaling.must_be({"truncate": [True]})
    scaling.ignore("attn_factor")  # of R1-0528-Qwen3-8B: transformers reads attention_factor only, as does llama.cpp
    original = _original_context(fields, scaling)
    mscale, mscale_all_dim = _mscales(scaling)
    return YarnScaling(
        factor=fields.size("max_position_embeddings") / original
        if scaling.is_null("factor")
        else scaling.number("factor"),
        original_max_position_embeddings=original,
        beta_fast=scaling.number("beta_fast", 32.0),
        beta_slow=scaling.number("beta_slow", 1.0),
        mscale=mscale,
        mscale_all_dim=mscale_all_dim,
    )


def _mscales(scaling: Fields) -> tuple[float, float]:
    """``mscale`` and ``mscale_all_dim``, where transformers and DeepSeek's own code make the same of them.

    Both are given, or neither: transformers takes 0 for neither, and 1 is what ``mscale`` then is in both.
    """
    mscale, all_dim = (scaling.number_or_zero(name) for name in ("mscale", "mscale_all_dim"))
    if mscale and all_dim:
        return mscale, all_dim
    if all_dim or ("mscale" in scaling and mscale != 1):
        scaling.complain("mscale", "or mscale_all_dim is missing or 0; expected both or neither")
    return 1.0, 0.0


def _llama3(fields: Fields, scaling: Fields, dim: int, theta: float) -> FrequencyFactors:
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
        original_context=_original_context(fields, scaling),
    )


_ROPE_KINDS = {"default": _no_scaling, "linear": _linear, "yarn": _yarn, "llama3": _llama3}
