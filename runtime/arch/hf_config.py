"""A checkpoint's ``config.json`` as a :class:`~sprat.runtime.arch.spec.ModelSpec`.

Each architecture has a reader for the fields it understands. The tables below list the others: fields with one
supported value, and fields that do not change the computation. Any other field is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sprat.errors import ConfigError, unknown_name
from sprat.runtime.arch.architecture import ConfigReader, config_readers
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["spec_from_config"]

_HARMLESS_GROUPS = {
    "description of the file": "_name_or_path architectures auto_map dtype model_type torch_dtype transformers_version",
    "multi-token prediction, which is left out": "num_mtp_layers num_nextn_predict_layers",
    "training": """
        attention_dropout aux_loss_alpha embd_pdrop ep_size gradient_checkpointing initializer_range
        output_router_logits pretraining_tp problem_type resid_pdrop router_aux_loss_coef seq_aux""",
    "settings of transformers": """
        _attn_implementation attn_implementation chunk_size_feed_forward keys_to_ignore_at_inference output_attentions
        output_hidden_states output_scores return_dict return_dict_in_generate torchscript use_bfloat16 use_cache""",
    "special tokens": """
        begin_suppress_tokens bos_token_id decoder_start_token_id eos_token_id forced_bos_token_id forced_eos_token_id
        pad_token_id prefix sep_token_id suppress_tokens tokenizer_class unk_token_id""",
    "generation": """
        bad_words_ids diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
        exponential_decay_length_penalty length_penalty max_length min_length no_repeat_ngram_size num_beam_groups
        num_beams num_return_sequences remove_invalid_values repetition_penalty temperature top_k top_p typical_p""",
    "fields of other kinds of models, which old versions of transformers wrote into every file": """
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


def spec_from_config(config: Mapping[str, Any]) -> ModelSpec:
    """Read the config of transformers 4 (``rope_theta``, ``rope_scaling``) or 5 (``rope_parameters``).

    Args:
        config: the parsed ``config.json``.

    Raises:
        ConfigError: the architecture is not supported, or fields are missing, unknown, out of range or have a
            value that sprat does not implement. The message names every such field.
    """
    fields = Fields("config.json", config)
    spec = _reader(config)(fields)
    fields.must_be(_FIXED)
    fields.finish(_HARMLESS)
    fields.raise_problems()
    spec.validate()
    return spec


def _reader(config: Mapping[str, Any]) -> ConfigReader:
    known, named = config_readers(), config.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise ConfigError(
            f"config.json: architectures is {named!r}; expected a list of one of {', '.join(sorted(known))}"
        )
    if named[0] not in known:
        raise ConfigError(f"config.json: {unknown_name('architecture', named[0], known)}")
    return known[named[0]]
