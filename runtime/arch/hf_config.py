"""A checkpoint's ``config.json`` as a :class:`~sprat.runtime.arch.spec.ModelSpec`.

Each architecture is a builder that takes the fields which it understands. The tables below hold the rest: fields that
must have one value, because sprat implements only that, and fields that do not touch the mathematics. Anything else
is an error that names the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sprat.errors import ConfigError, unknown_name
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.rope import llama3_factors
from sprat.runtime.arch.spec import (
    Architecture,
    FrequencyFactors,
    GroupScore,
    MLASpec,
    ModelSpec,
    MoESpec,
    RopeSpec,
    Scoring,
    YarnScaling,
)

__all__ = ["spec_from_config"]

_HARMLESS_GROUPS = {
    "what the file is": "_name_or_path architectures auto_map dtype model_type torch_dtype transformers_version",
    "the layer that predicts a second token, which is skipped": "num_mtp_layers num_nextn_predict_layers",
    "training": """
        attention_dropout aux_loss_alpha embd_pdrop ep_size gradient_checkpointing initializer_range
        output_router_logits pretraining_tp problem_type resid_pdrop router_aux_loss_coef seq_aux""",
    "how another implementation runs it": """
        _attn_implementation attn_implementation chunk_size_feed_forward keys_to_ignore_at_inference output_attentions
        output_hidden_states output_scores return_dict return_dict_in_generate torchscript use_bfloat16 use_cache""",
    "tokens": """
        begin_suppress_tokens bos_token_id decoder_start_token_id eos_token_id forced_bos_token_id forced_eos_token_id
        pad_token_id prefix sep_token_id suppress_tokens tokenizer_class unk_token_id""",
    "generation": """
        bad_words_ids diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
        exponential_decay_length_penalty length_penalty max_length min_length no_repeat_ngram_size num_beam_groups
        num_beams num_return_sequences remove_invalid_values repetition_penalty temperature top_k top_p typical_p""",
    "other kinds of models, whose fields transformers once wrote into every file": """
        cross_attention_hidden_size finetuning_task id2label is_decoder label2id task_specific_params tf_legacy_loss
        tie_encoder_decoder""",
}
_FIXED: dict[str, list[Any]] = {
    "add_cross_attention": [False],
    "attention_bias": [False],
    "hidden_act": ["silu"],
    "is_encoder_decoder": [False],
    "mlp_bias": [False],
    "pruned_heads": [{}],
}
_HARMLESS = frozenset(name for names in _HARMLESS_GROUPS.values() for name in names.split())
_ROPE_HARMLESS = frozenset({"finetuned"})
_MOST_HEAD_DIM = 1 << 16  # a hundred times what is published: there will be an array of this length
_MLA_EPS = 1e-6  # transformers' latent norms use it whatever the config says, and GGUF has one epsilon for all

_Builder = Callable[[Fields], ModelSpec]


def spec_from_config(config: Mapping[str, Any]) -> ModelSpec:
    """Read the classic form (``rope_theta``, ``rope_scaling``) and that of transformers 5 (``rope_parameters``).

    Args:
        config: the parsed ``config.json``.

    Raises:
        ConfigError: the architecture is not supported, or fields are missing, unknown, out of range or ask for
            mathematics that sprat does not implement. The message names every such field.
    """
    fields = Fields("config.json", config)
    builder = _BUILDERS[_architecture(config)]
    spec = builder(fields)
    fields.must_be(_FIXED)
    fields.finish(_HARMLESS)
    fields.raise_problems()
    spec.validate()
    return spec


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise ConfigError(
            f"config.json: architectures is {named!r}; expected a list of one name, of {', '.join(sorted(_BUILDERS))}"
        )
    if named[0] not in _BUILDERS:
        raise ConfigError(f"config.json: {unknown_name('architecture', named[0], _BUILDERS)}")
    return named[0]


def _llama(fields: Fields) -> ModelSpec:
    return _dense(fields, Architecture.LLAMA, interleaved=True)


def _qwen2(fields: Fields) -> ModelSpec:
    fields.must_be({"use_sliding_window": [False], "use_mrope": [False]})
    fields.all_must_be("layer_types", "full_attention")
    fields.ignore("sliding_window", "max_window_layers")  # of windows that are not used
    return _dense(fields, Architecture.QWEN2, interleaved=False)


def _dense(fields: Fields, architecture: Architecture, *, interleaved: bool) -> ModelSpec:
    n_heads = fields.size("num_attention_heads")
    hidden_size = fields.size("hidden_size")
    head_dim = fields.size("head_dim", hidden_size // n_heads)
    return ModelSpec(
        architecture=architecture,
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden_size,
        n_layers=fields.size("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=fields.size("num_key_value_heads", n_heads),
        head_dim=head_dim,
        intermediate_size=fields.size("intermediate_size"),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        max_context=fields.size("max_position_embeddings"),
        rope=_rope(fields, head_dim, interleaved=interleaved),
        tied_embeddings=fields.flag("tie_word_embeddings", False),
        attention_bias=architecture is Architecture.QWEN2,
    )


def _deepseek_v2(fields: Fields) -> ModelSpec:
    # norm_topk_prob: DeepSeek's code normalises instead of scaling, transformers' ignores it; no checkpoint has it
    fields.must_be({"scoring_func": ["softmax"], "norm_topk_prob": [False]})
    limited = fields.choice("topk_method", {"greedy": False, "group_limited_greedy": True}, "greedy")
    n_groups, n_chosen = fields.size("n_group", 1), fields.size("topk_group", 1)
    moe = _moe(
        fields,
        scoring=Scoring.SOFTMAX,
        normalize=False,
        scaling=fields.number("routed_scaling_factor", 1.0),
        n_groups=n_groups if limited else 1,
        n_groups_per_token=n_chosen if limited else 1,
        group_score=GroupScore.MAX,
    )
    return _deepseek(fields, moe)


def _deepseek_v3(fields: Fields) -> ModelSpec:
    fields.must_be({"scoring_func": ["sigmoid"], "topk_method": ["noaux_tc"], "rope_interleave": [True]})
    _check_fp8(fields)
    moe = _moe(
        fields,
        scoring=Scoring.SIGMOID,
        normalize=fields.flag("norm_topk_prob", True),
        scaling=fields.number("routed_scaling_factor", 2.5),
        n_groups=fields.size("n_group", 8),
        n_groups_per_token=fields.size("topk_group", 4),
        group_score=GroupScore.TOP2_SUM,
        correction_bias=True,
    )
    return _deepseek(fields, moe)


def _moe(fields: Fields, *, n_groups: int, n_groups_per_token: int, **rules: Any) -> MoESpec:
    fields.must_be({"moe_layer_freq": [1]})
    is_limited = n_groups_per_token != n_groups  # choosing all groups is no limit
    return MoESpec(
        n_routed_experts=fields.size("n_routed_experts"),
        n_shared_experts=fields.size("n_shared_experts", least=0),
        n_experts_per_token=fields.size("num_experts_per_tok"),
        expert_width=fields.size("moe_intermediate_size"),
        n_dense_layers=fields.size("first_k_dense_replace", least=0),
        n_groups=n_groups if is_limited else 1,
        n_groups_per_token=n_groups_per_token if is_limited else 1,
        **rules,
    )


def _deepseek(fields: Fields, moe: MoESpec) -> ModelSpec:
    n_heads = fields.size("num_attention_heads")
    mla = MLASpec(
        q_lora_rank=fields.size("q_lora_rank") if "q_lora_rank" in fields else None,
        kv_lora_rank=fields.size("kv_lora_rank"),
        qk_nope_head_dim=fields.size("qk_nope_head_dim"),
        qk_rope_head_dim=fields.size("qk_rope_head_dim"),
        v_head_dim=fields.size("v_head_dim"),
    )
    fields.must_be(
        {
            "num_key_value_heads": [n_heads],
            "rms_norm_eps": [_MLA_EPS],
            "head_dim": [mla.qk_rope_head_dim],  # transformers 5 writes these two, which follow from others
            "qk_head_dim": [mla.qk_head_dim],
        }
    )
    return ModelSpec(
        architecture=Architecture.DEEPSEEK2,
        vocab_size=fields.size("vocab_size"),
        hidden_size=fields.size("hidden_size"),
        n_layers=fields.size("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=n_heads,
        head_dim=mla.qk_head_dim,
        intermediate_size=fields.size("intermediate_size"),
        rms_norm_eps=_MLA_EPS,
        max_context=fields.size("max_position_embeddings"),
        rope=_rope(fields, mla.qk_rope_head_dim, interleaved=True),
        tied_embeddings=fields.flag("tie_word_embeddings", False),
        mla=mla,
        moe=moe,
    )


def _check_fp8(fields: Fields) -> None:
    """The one kind of quantized checkpoint: V3's, whose numbers are described in the tensors themselves."""
    quantization = fields.nested("quantization_config")
    quantization.must_be({"quant_method": ["fp8"], "fmt": ["e4m3"], "weight_block_size": [[128, 128]]})
    quantization.finish({"activation_scheme", "scale_fmt", "modules_to_not_convert"})  # weights alone are read


def _rope(fields: Fields, dim: int, *, interleaved: bool) -> RopeSpec:
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
    if dim > _MOST_HEAD_DIM:
        scaling.complain("rope_type", f"applies to {dim} numbers of a head; expected at most {_MOST_HEAD_DIM}")
        dim = _MOST_HEAD_DIM
    return llama3_factors(
        dim,
        theta,
        factor=scaling.number("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_context=scaling.size("original_max_position_embeddings"),
    )


_ROPE_KINDS = {"default": _no_scaling, "yarn": _yarn, "llama3": _llama3}

_BUILDERS: dict[str, _Builder] = {
    "LlamaForCausalLM": _llama,
    "Qwen2ForCausalLM": _qwen2,
    "DeepseekV2ForCausalLM": _deepseek_v2,
    "DeepseekV3ForCausalLM": _deepseek_v3,
}
