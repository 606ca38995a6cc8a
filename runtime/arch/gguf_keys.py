"""A :class:`~sprat.runtime.arch.spec.ModelSpec` as GGUF metadata and back: llama.cpp's keys, named as in ``gguf.Keys``.

A key that changes the mathematics and is not understood here is an error that names it, never ignored.

Where llama.cpp and DeepSeek differ: for DeepSeek-V2 (236B) llama.cpp scores a group of experts by its best two,
DeepSeek by its best one. The keys are the same, and sprat follows DeepSeek.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sprat.errors import ConfigError, unknown_name
from sprat.runtime.arch.fields import Fields
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
from sprat.runtime.arch.tensors import ROPE_FREQS
from sprat.runtime.weights import WeightSource

__all__ = ["metadata_from_spec", "spec_from_metadata"]

_GATING = {1: Scoring.SOFTMAX, 2: Scoring.SIGMOID}  # expert_gating_func
_GROUP_SCORES = {Scoring.SOFTMAX: GroupScore.MAX, Scoring.SIGMOID: GroupScore.TOP2_SUM}
_LOG_MULTIPLIER = 0.1  # yarn_log_multiplier holds this times mscale_all_dim, for deepseek2 alone
_HARMLESS = ("vocab_size", "rope.scaling.finetuned")


def metadata_from_spec(spec: ModelSpec) -> dict[str, Any]:
    """The keys under the architecture's name; ``general.*`` and ``tokenizer.*`` are the writer's.

    Llama 3.1's rope scaling has no key: it is the tensor ``rope_freqs.weight``.

    Raises:
        ConfigError: llama.cpp would read the file as another model, or not at all.
    """
    if problems := _not_in_llamacpp(spec):
        raise ConfigError(f"llama.cpp cannot run this {spec.architecture} model: {'; '.join(problems)}")
    metadata: dict[str, Any] = {
        "block_count": spec.n_layers,
        "context_length": spec.max_context,
        "embedding_length": spec.hidden_size,
        "feed_forward_length": spec.intermediate_size,
        "attention.head_count": spec.n_heads,
        "attention.layer_norm_rms_epsilon": spec.rms_norm_eps,
        **(_latent_keys(spec.mla) if spec.mla else _grouped_keys(spec)),
        **(_mixture_keys(spec.moe) if spec.moe else {}),
        "rope.dimension_count": spec.rope.dim,
        "rope.freq_base": spec.rope.theta,
        **(_yarn_keys(spec, spec.rope.scaling) if isinstance(spec.rope.scaling, YarnScaling) else {}),
        "vocab_size": spec.vocab_size,
    }
    return {f"{spec.architecture}.{key}": value for key, value in metadata.items()}


def spec_from_metadata(metadata: Mapping[str, Any], weights: WeightSource) -> ModelSpec:
    """Read the keys of a file, and from its tensors what no key says: tied embeddings, biases, rope factors.

    Args:
        metadata: all metadata of the file.
        weights: its tensors; only ``rope_freqs.weight`` is read.

    Raises:
        ConfigError: the architecture is not supported, or keys are missing, unknown, out of range or have a value
            that sprat does not
            implement. The message names every such key.
    """
    known = {str(architecture): architecture for architecture in Architecture}
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"metadata: {unknown_name('general.architecture', str(name), known)}")
    prefix = f"{name}."
    keys = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    fields = Fields("metadata", keys, prefix)
    read = _read_deepseek if name == Architecture.DEEPSEEK2 else _read_dense
    spec = read(fields, known[name], weights)
    fields.finish(_HARMLESS)
    fields.raise_problems()
    spec.validate()
    return spec


def _not_in_llamacpp(spec: ModelSpec) -> list[str]:
    """What llama.cpp would refuse, or silently read as something else."""
    wrong = {
        "heads are not hidden_size / n_heads wide": (
            spec.architecture is Architecture.QWEN2 and spec.n_heads * spec.head_dim != spec.hidden_size
        )
    }
    if isinstance(yarn := spec.rope.scaling, YarnScaling):
        one = yarn.mscale == yarn.mscale_all_dim > 0 if spec.mla else (yarn.mscale, yarn.mscale_all_dim) == (1.0, 0.0)
        wrong |= {
            f"YaRN's mscale is {yarn.mscale} and mscale_all_dim {yarn.mscale_all_dim}": not one,
            "YaRN's beta_fast and beta_slow are not 32 and 1": (yarn.beta_fast, yarn.beta_slow) != (32.0, 1.0),
        }
    if spec.mla and spec.moe:
        has_q_lora = spec.mla.q_lora_rank is not None
        wrong |= {
            f"it has q_lora and {spec.n_layers} layers, which is V2-Lite's mark": has_q_lora
            and spec.n_layers in {26, 27},
            "it has no shared experts": spec.moe.n_shared_experts == 0,
            "each group has one expert": spec.moe.n_groups == spec.moe.n_routed_experts,
        }
    return [problem for problem, is_wrong in wrong.items() if is_wrong]


def _grouped_keys(spec: ModelSpec) -> dict[str, Any]:
    return {
        "attention.head_count_kv": spec.n_kv_heads,
        "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim,
    }


def _latent_keys(mla: MLASpec) -> dict[str, Any]:
    """Absorbed, all heads share one key of a whole cache row, whose first part is the value."""
    return {
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": mla.q_lora_rank or 0,  # demanded of every model but V2-Lite's 27 layers
        "attention.kv_lora_rank": mla.kv_lora_rank,
        "attention.key_length": mla.latent_dim,
        "attention.value_length": mla.kv_lora_rank,
        "attention.key_length_mla": mla.qk_head_dim,
        "attention.value_length_mla": mla.v_head_dim,
    }


def _mixture_keys(moe: MoESpec) -> dict[str, Any]:
    gating = {scoring: number for number, scoring in _GATING.items()}
    groups = {"expert_group_count": moe.n_groups, "expert_group_used_count": moe.n_groups_per_token}
    return {
        "leading_dense_block_count": moe.n_dense_layers,
        "expert_count": moe.n_routed_experts,
        "expert_used_count": moe.n_experts_per_token,
        "expert_shared_count": moe.n_shared_experts,
        "expert_feed_forward_length": moe.expert_width,
        "expert_weights_scale": moe.scaling,
        "expert_weights_norm": moe.normalize,
        "expert_gating_func": gating[moe.scoring],
        **(groups if moe.n_groups > 1 else {}),
    }


def _yarn_keys(spec: ModelSpec, yarn: YarnScaling) -> dict[str, Any]:
    multiplier = {"rope.scaling.yarn_log_multiplier": _LOG_MULTIPLIER * yarn.mscale_all_dim} if spec.mla else {}
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": yarn.factor,
        "rope.scaling.original_context_length": yarn.original_max_position_embeddings,
        **multiplier,
    }


def _read_dense(fields: Fields, architecture: Architecture, weights: WeightSource) -> ModelSpec:
    n_heads = fields.size("attention.head_count")
    hidden_size = fields.size("embedding_length")
    head_dim = fields.size("attention.key_length", hidden_size // n_heads)
    fields.must_be({"attention.value_length": [head_dim], "expert_count": [0], "expert_used_count": [0]})
    return ModelSpec(
        architecture=architecture,
        n_layers=fields.size("block_count"),
        hidden_size=hidden_size,
        n_heads=n_heads,
        n_kv_heads=fields.size("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        rope=_read_rope(fields, head_dim, weights, interleaved=architecture is Architecture.LLAMA),
        attention_bias="blk.0.attn_q.bias" in weights,
        **_read_common(fields, weights),
    )


def _read_deepseek(fields: Fields, architecture: Architecture, weights: WeightSource) -> ModelSpec:
    mla = _read_mla(fields)
    n_heads = fields.size("attention.head_count")
    n_mtp_layers = fields.size("nextn_predict_layers", 0, least=0)
    return ModelSpec(
        architecture=architecture,
        n_layers=fields.size("block_count") - n_mtp_layers,
        hidden_size=fields.size("embedding_length"),
        n_heads=n_heads,
        n_kv_heads=n_heads,
        head_dim=mla.qk_head_dim,
        rope=_read_rope(fields, mla.qk_rope_head_dim, weights, interleaved=True),
        mla=mla,
        moe=_read_moe(fields, weights),
        **_read_common(fields, weights),
    )


def _read_common(fields: Fields, weights: WeightSource) -> dict[str, Any]:
    fields.must_be({"attention.causal": [True]})
    return {
        "vocab_size": weights.weight("token_embd.weight").shape[0],
        "intermediate_size": fields.size("feed_forward_length"),
        "rms_norm_eps": _decimal(fields.number("attention.layer_norm_rms_epsilon")),
        "max_context": fields.size("context_length"),
        "tied_embeddings": "output.weight" not in weights,
    }


def _read_mla(fields: Fields) -> MLASpec:
    if "attention.key_length_mla" not in fields:
        fields.complain(
            "attention.key_length_mla",
            "is absent, as in files older than MLA in llama.cpp: convert again",
        )
    rank = fields.size("attention.kv_lora_rank")
    rope = fields.size("rope.dimension_count")
    key = fields.size("attention.key_length_mla", rope + 1, least=rope + 1)
    fields.must_be(
        {
            "attention.head_count_kv": [1],
            "attention.key_length": [rank + rope],
            "attention.value_length": [rank],
        }
    )
    return MLASpec(
        q_lora_rank=fields.size("attention.q_lora_rank", 0, least=0) or None,
        kv_lora_rank=rank,
        qk_nope_head_dim=key - rope,
        qk_rope_head_dim=rope,
        v_head_dim=fields.size("attention.value_length_mla", 1),
    )


def _read_moe(fields: Fields, weights: WeightSource) -> MoESpec:
    n_dense_layers = fields.size("leading_dense_block_count", 0, least=0)
    scoring = fields.choice("expert_gating_func", _GATING, 1)
    return MoESpec(
        n_routed_experts=fields.size("expert_count"),
        n_shared_experts=fields.size("expert_shared_count", 0, least=0),
        n_experts_per_token=fields.size("expert_used_count"),
        expert_width=fields.size("expert_feed_forward_length"),
        n_dense_layers=n_dense_layers,
        scoring=scoring,
        normalize=fields.flag("expert_weights_norm", False),
        scaling=_decimal(fields.number("expert_weights_scale", 1.0)),
        n_groups=fields.size("expert_group_count", 1),
        n_groups_per_token=fields.size("expert_group_used_count", 1),
        group_score=_GROUP_SCORES[scoring],
        correction_bias=f"blk.{n_dense_layers}.exp_probs_b.bias" in weights,
    )


def _read_rope(fields: Fields, dim: int, weights: WeightSource, *, interleaved: bool) -> RopeSpec:
    one = (
        "rope.scale_linear",
        "rope.scaling.attn_factor",
        "rope.scaling.yarn_attn_factor",
        "rope.scaling.yarn_ext_factor",
    )
    fields.must_be({"rope.dimension_count": [dim]} | {key: [1.0] for key in one})
    read = fields.choice(
        "rope.scaling.type", {"none": _read_factors, "linear": _read_factors, "yarn": _read_yarn}, "none"
    )
    theta = _decimal(fields.number("rope.freq_base", 10000.0))
    return RopeSpec(dim=dim, theta=theta, interleaved=interleaved, scaling=read(fields, weights))


def _read_factors(fields: Fields, weights: WeightSource) -> FrequencyFactors | None:
    """Llama 3.1's scaling, or none."""
    fields.must_be({"rope.scaling.factor": [1.0]})
    fields.ignore("rope.scaling.original_context_length")
    if ROPE_FREQS not in weights:
        return None
    return FrequencyFactors(tuple(weights.weight(ROPE_FREQS).dequantize().ravel().tolist()))


def _read_yarn(fields: Fields, weights: WeightSource) -> YarnScaling:
    """As llama.cpp understands it: ``yarn_log_multiplier`` stands for both mscales; without it they are the paper's."""
    mscale: dict[str, float] = {}
    if "rope.scaling.yarn_log_multiplier" in fields:
        both = round(_decimal(fields.number("rope.scaling.yarn_log_multiplier")) / _LOG_MULTIPLIER, 6)
        mscale = {"mscale": both, "mscale_all_dim": both}
    return YarnScaling(
        factor=_decimal(fields.number("rope.scaling.factor")),
        original_max_position_embeddings=fields.size("rope.scaling.original_context_length"),
        beta_fast=_decimal(fields.number("rope.scaling.yarn_beta_fast", 32.0)),
        beta_slow=_decimal(fields.number("rope.scaling.yarn_beta_slow", 1.0)),
        **mscale,
    )


def _decimal(value: float) -> float:
    """The shortest decimal that a file's binary32 stands for: 1e-06, where widening it gives 9.999999974752427e-07."""
    return float(str(np.float32(value)))
