"""A checkpoint's ``config.json`` as a :class:`~sprat.runtime.arch.spec.ModelSpec`.

Each architecture has a reader for the fields it understands. The tables below list the others: fields with one
supported value, and fields that do not change the computation. Any other field is an error that names it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sprat.errors import ConfigError, unknown_name
from sprat.runtime.arch.architecture import ConfigReader, config_readers
from sprat.runtime.arch.config_kinds import refuse_known_kinds
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.fp8_config import check_fp8
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["spec_from_config"]

_HARMLESS_GROUPS = {
    "description of the file": """
        adapter_path architectures auto_map base_model custom_pipelines dtype license model_name model_type name
        name_or_path tags torch_dtype transformers_version""",
    "multi-token prediction, which is left out": "num_mtp_layers num_nextn_predict_layers",
    "training": """
        attention_dropout attention_probs_dropout_prob attn_pdrop aux_loss_alpha classifier_dropout dropout embd_pdrop
        embedding_dropout ep_size gradient_checkpointing gradient_checkpointing_kwargs hidden_dropout
        hidden_dropout_prob initializer_range layerdrop loss_type mlp_dropout neftune_noise_alpha output_router_logits
        pretraining_tp problem_type resid_dropout resid_pdrop residual_dropout router_aux_loss_coef router_z_loss_coef
        seq_aux summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
        use_liger_kernel z_loss_weight""",
    "settings of other implementations": """
        attention_implementation attn_implementation base_model_pp_plan base_model_tp_plan cache_implementation
        chunk_size_feed_forward experts_implementation fsdp_transformer_layer_cls_to_wrap keys_to_ignore_at_inference
        logits_to_keep model_parallel num_logits_to_keep output_attentions output_hidden_states output_scores pp_plan
        return_dict return_dict_in_generate tensor_parallel_size torchscript tp_plan transformers.js_config
        use_bfloat16 use_cache use_flash_attention use_flash_attention_2 use_flash_attn use_return_dict""",
    "special tokens": """
        begin_suppress_tokens bos_token bos_token_id chat_template decoder_start_token_id eos_token eos_token_id
        forced_bos_token_id forced_eos_token_id model_max_length pad_token pad_token_id padding_side prefix sep_token_id
        suppress_tokens tokenizer_class tokenizer_name unk_token unk_token_id""",
    "generation": """
        bad_words_ids diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
        exponential_decay_length_penalty length_penalty max_length min_length no_repeat_ngram_size num_beam_groups
        max_new_tokens min_new_tokens num_beams num_return_sequences remove_invalid_values repetition_penalty
        temperature top_k top_p typical_p""",
    "fields of other kinds of models, which old versions of transformers wrote into every file": """
        cross_attention_hidden_size finetuning_task id2label is_decoder label2id task_specific_params tf_legacy_loss
        tie_encoder_decoder""",
}
_FIXED: dict[str, list[Any]] = {
    "add_cross_attention": [False],
    "attention_bias": [False],
    "hidden_act": ["silu", "swish"],  # two names of one function
    "is_encoder_decoder": [False],
    "mlp_bias": [False],
    "pruned_heads": [{}],
}
_HARMLESS = frozenset(name for names in _HARMLESS_GROUPS.values() for name in names.split())
# Private attributes of transformers, which it does not read, and fields of the programs that wrote the file
_HARMLESS_PREFIXES = ("_", "axolotl_", "llamafactory_", "trl_", "unsloth_")
_HARMLESS_SUFFIXES = ("_version",)


def spec_from_config(config: Mapping[str, Any], *, ignore_fields: Collection[str] = ()) -> ModelSpec:
    """Read the config of transformers 4 (``rope_theta``, ``rope_scaling``) or 5 (``rope_parameters``).

    Args:
        config: the parsed ``config.json``.
        ignore_fields: unknown fields that, as the caller knows, do not change the computation; a nested one as
            ``rope_scaling.name``.

    Raises:
        ConfigError: the architecture is not supported, or fields are missing, unknown, out of range or have a
            value that sprat does not implement, or a name in ``ignore_fields`` is not that of an unknown field. The
            message names every such field.
    """
    if isinstance(ignore_fields, str) or not _are_names(ignore_fields):
        raise ConfigError(f"the fields to ignore are {ignore_fields!r}, expected a list of names")
    refuse_known_kinds(config)
    fields = Fields("config.json", config, ignored=ignore_fields)
    spec = _reader(config)(fields)
    check_fp8(fields)
    fields.must_be(_FIXED)
    fields.must_not_be_null("hidden_act")
    fields.finish({*_HARMLESS, *filter(_is_tool_field, fields.names())})
    for name in sorted(set(ignore_fields) - fields.unknown.keys()):
        fields.complain(name, "cannot be ignored: it is not in the file, or sprat knows it")
    fields.raise_problems(_remedy([name for name, ignored in fields.unknown.items() if not ignored]))
    spec.validate()
    return spec


def _are_names(names: object) -> bool:
    return isinstance(names, Collection) and all(isinstance(name, str) for name in names)


def _is_tool_field(name: str) -> bool:
    return name.startswith(_HARMLESS_PREFIXES) or name.endswith(_HARMLESS_SUFFIXES)


_MAX_OPTIONS = 6


def _remedy(unknown: Collection[str]) -> str:
    supported = "use a checkpoint of a supported architecture"
    if not unknown:
        return supported
    options = " ".join(f"--ignore-config-field {name}" for name in sorted(unknown)[:_MAX_OPTIONS])
    if len(unknown) > _MAX_OPTIONS:
        options += f" and so on for all {len(unknown)} unknown fields"
    return f"{supported}; or, if you know that it does not change the computation, add {options}"


def _reader(config: Mapping[str, Any]) -> ConfigReader:
    known, named = config_readers(), config.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise ConfigError(
            f"config.json: architectures is {named!r}; expected a list of one of {', '.join(sorted(known))}"
        )
    if named[0] not in known:
        raise ConfigError(f"config.json: {unknown_name('architecture', named[0], known)}")
    return known[named[0]]
