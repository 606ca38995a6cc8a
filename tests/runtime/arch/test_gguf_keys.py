"""Specs of all published checkpoints to GGUF keys and back, and keys that must not be ignored."""

from __future__ import annotations

from dataclasses import replace

import gguf
import numpy as np
import pytest
from memory_weights import MemoryWeights
from published_configs import PUBLISHED

from sprat.errors import ConfigError
from sprat.runtime.arch.attention import GroupedAttentionSpec
from sprat.runtime.arch.gguf_keys import llamacpp_differences, metadata_from_spec, spec_from_metadata
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.rope import FrequencyFactors, LinearScaling, YarnScaling
from sprat.runtime.arch.tensors import ROPE_FREQS
from sprat.runtime.files.gguf import GGUFFile

LITE, V2, QWEN, R1_LLAMA = (
    spec_from_config(PUBLISHED[f"DeepSeek-{n}"])
    for n in ("V2-Lite", "V2", "R1-Distill-Qwen-1.5B", "R1-Distill-Llama-8B")
)


def file_of(spec):
    """Metadata and tensors as in a file of ``spec``: floats rounded to float32, tensors without data."""
    metadata = {key: float(np.float32(v)) if isinstance(v, float) else v for key, v in metadata_from_spec(spec).items()}
    weights = MemoryWeights.shaped_like(spec)
    if isinstance(spec.rope.scaling, FrequencyFactors):
        weights.arrays[ROPE_FREQS] = np.array(spec.rope.scaling.factors, np.float32)
    return {"general.architecture": str(spec.architecture)} | metadata, weights


@pytest.mark.parametrize("name", PUBLISHED)
def test_round_trip(name):
    spec = spec_from_config(PUBLISHED[name])
    assert spec_from_metadata(*file_of(spec)) == spec


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_key_is_one_of_llamacpps(name):
    spec = spec_from_config(PUBLISHED[name])
    groups = (gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope)
    known = {str(key).replace("{arch}", spec.architecture) for group in groups for key in vars(group).values()}
    own = {f"{spec.architecture}.attention.latent_norm_rms_epsilon"} if spec.rms_norm_eps != 1e-6 else set()
    assert metadata_from_spec(spec).keys() <= known | own


def test_a_published_qwen3moe_has_no_key_for_the_normalization_that_llamacpp_applies():
    metadata, weights = file_of(spec_from_config(PUBLISHED["Qwen3-30B-A3B"]))
    del metadata["qwen3moe.expert_weights_norm"]
    assert spec_from_metadata(metadata, weights).moe.normalize


def test_a_dense_deepseek2_has_the_keys_of_experts_that_llamacpp_requires():
    keys = metadata_from_spec(spec_from_config(PUBLISHED["Youtu-LLM-2B"]))
    assert keys["deepseek2.leading_dense_block_count"] == keys["deepseek2.block_count"] == 32
    assert (keys["deepseek2.expert_feed_forward_length"], keys["deepseek2.expert_shared_count"]) == (6144, 0)
    assert "deepseek2.expert_count" not in keys


def test_the_epsilon_of_latent_norms_has_a_key_where_it_is_not_the_models():
    moonlight = spec_from_config(PUBLISHED["Moonlight-16B-A3B"])
    assert metadata_from_spec(moonlight)["deepseek2.attention.latent_norm_rms_epsilon"] == 1e-6
    assert "deepseek2.attention.latent_norm_rms_epsilon" not in metadata_from_spec(LITE)


def test_v2_lite_keys():
    """What a stock conversion of V2-Lite writes, plus q_lora_rank, which llama.cpp requires for other layer counts."""
    keys = {key.removeprefix("deepseek2."): value for key, value in metadata_from_spec(LITE).items()}
    assert keys == {
        "block_count": 27,
        "context_length": 163840,
        "embedding_length": 2048,
        "feed_forward_length": 10944,
        "attention.head_count": 16,
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": 0,
        "attention.kv_lora_rank": 512,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "leading_dense_block_count": 1,
        "expert_count": 64,
        "expert_used_count": 6,
        "expert_shared_count": 2,
        "expert_feed_forward_length": 1408,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": False,
        "expert_gating_func": 1,
        "rope.dimension_count": 64,
        "rope.freq_base": 10000.0,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 40.0,
        "rope.scaling.original_context_length": 4096,
        "rope.scaling.yarn_log_multiplier": pytest.approx(0.0707),
        "vocab_size": 102400,
    }


@pytest.mark.slow
def test_smollm2(smollm2_gguf):
    with GGUFFile.open(smollm2_gguf) as file:
        spec = spec_from_metadata(file.metadata, file)
    assert (spec.n_layers, spec.hidden_size) == (30, 576)
    assert spec.attention == GroupedAttentionSpec(n_heads=9, n_kv_heads=3, head_dim=64)
    assert (spec.rms_norm_eps, spec.rope.theta, spec.tied_embeddings, spec.vocab_size) == (1e-5, 1e5, True, 49152)


@pytest.mark.parametrize(
    ("keys", "factor"),
    [
        ({"scaling.type": "linear", "scaling.factor": 4.0}, 4.0),
        ({"scaling.factor": 4.0}, 4.0),
        ({"scale_linear": 4.0}, 4.0),
        ({"scaling.type": "linear", "scaling.factor": 1.0}, None),
        ({"scaling.type": "none", "scaling.factor": 4.0}, None),
    ],
)
def test_a_linear_factor_is_read_as_llamacpp_does(keys, factor):
    metadata, weights = file_of(QWEN)
    spec = spec_from_metadata(metadata | {f"qwen2.rope.{key}": value for key, value in keys.items()}, weights)
    expected = replace(QWEN, rope=replace(QWEN.rope, scaling=factor and LinearScaling(factor=factor)))
    assert spec == expected
    assert spec_from_metadata(*file_of(expected)) == expected


def test_mtp_layers_are_not_counted():
    metadata, weights = file_of(LITE)
    with_mtp = metadata | {"deepseek2.block_count": 28, "deepseek2.nextn_predict_layers": 1}
    assert spec_from_metadata(with_mtp, weights) == replace(LITE, n_mtp_layers=1)
    assert file_of(replace(LITE, n_mtp_layers=1))[0] == with_mtp


@pytest.mark.parametrize(
    ("spec", "changes", "named"),
    [
        (R1_LLAMA, {"llama.rope.scaling.factor": 4.0}, "expected one of the two"),
        (QWEN, {"qwen2.rope.scaling.type": "longrope"}, "rope.scaling.type"),
        (QWEN, {"qwen2.attention.sliding_window": 4096}, "attention.sliding_window"),
        (QWEN, {"qwen2.expert_count": 60}, "expert_count"),
        (QWEN, {"qwen2.logit_scale": 0.1}, "logit_scale"),
        (QWEN, {"qwen2.rope.dimension_count": 64}, "rope.dimension_count"),
        (QWEN, {"qwen2.feed_forward_length": np.array([8960] * 27)}, "feed_forward_length"),
        (QWEN, {"qwen2.final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        (QWEN, {"qwen2.attention.causal": False}, "attention.causal"),
        (QWEN, {"qwen2.attention.head_count": np.array([12] * 27 + [6])}, "attention.head_count"),
        (LITE, {"deepseek2.attention.key_length_mla": None}, "head_count_kv is 1; sprat supports only 16"),
        (LITE, {"deepseek2.attention.head_count_kv": 16}, "attention.head_count_kv"),
        (LITE, {"deepseek2.expert_gating_func": 3}, "expert_gating_func"),
        (LITE, {"deepseek2.rope.scaling.attn_factor": 1.2}, "rope.scaling.attn_factor"),
        (LITE, {"deepseek2.attention.temperature_scale": 0.1}, "attention.temperature_scale"),
        (LITE, {"deepseek2.block_count": 2**40}, "block_count"),
        (LITE, {"deepseek2.expert_count": None}, "expert_count is missing"),
        (LITE, {"deepseek2.nextn_predict_layers": 27}, "0 layers"),
        (LITE, {"deepseek2.attention.value_length": np.array([512, 512])}, "attention.value_length"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_key_that_changes_the_computation_is_an_error_that_names_it(spec, changes, named):
    metadata, weights = file_of(spec)
    with pytest.raises(ConfigError, match=named):
        spec_from_metadata(metadata | changes, weights)


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        (
            QWEN,
            {"qwen2.attention.head_count": np.array([12] * 28), "qwen2.attention.head_count_kv": np.array([2] * 28)},
        ),
        (QWEN, {"qwen2.feed_forward_length": np.array([8960] * 28, np.int32)}),
        (QWEN, {"qwen2.attention.causal": np.array([True] * 28)}),
        (QWEN, {"qwen2.tensor_data_layout": "Meta AI original pth", "qwen2.pooling_type": 3}),
        (QWEN, {"qwen2.expert_count": 0, "qwen2.expert_used_count": 0, "qwen2.nextn_predict_layers": 0}),
        (QWEN, {"qwen2.rope.scaling.factor": 0.0, "qwen2.rope.scale_linear": 0.0}),
        (QWEN, {"qwen2.rope.scaling.type": "none", "qwen2.rope.scaling.yarn_log_multiplier": 0.1}),
        (QWEN, {"qwen2.attention.clamp_kqv": 0.0, "qwen2.attention.max_alibi_bias": 0.0, "qwen2.logit_scale": 1.0}),
        (QWEN, {"qwen2.attention.layer_norm_epsilon": 1e-5, "qwen2.use_parallel_residual": False}),
        (LITE, {"deepseek2.expert_weights_scale": 0.0, "deepseek2.expert_gating_func": 0}),
        (LITE, {"deepseek2.expert_group_count": 0, "deepseek2.expert_group_used_count": 0}),
        (LITE, {"deepseek2.attention.head_count": np.array([16] * 27, np.uint32)}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_keys_that_llamacpp_tolerates_do_not_change_the_spec(spec, changes):
    metadata, weights = file_of(spec)
    assert spec_from_metadata(metadata | changes, weights) == spec


@pytest.mark.parametrize("name", ["phi3", 7, None, np.array([1, 2])])
def test_an_unknown_architecture_is_named(name):
    with pytest.raises(ConfigError, match=r"unknown general\.architecture"):
        spec_from_metadata({"general.architecture": name}, MemoryWeights({}))


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (replace(V2, n_layers=27), "recognizes V2-Lite"),
        (replace(LITE, moe=replace(LITE.moe, n_shared_experts=0)), "no shared experts"),
        (replace(LITE, rope=replace(LITE.rope, scaling=replace(LITE.rope.scaling, mscale=1.0))), "mscale is 1.0"),
        (replace(LITE, rope=replace(LITE.rope, scaling=replace(LITE.rope.scaling, beta_fast=16.0))), "beta_fast"),
        (
            replace(
                QWEN,
                rope=replace(
                    QWEN.rope,
                    scaling=YarnScaling(
                        factor=4.0,
                        original_max_position_embeddings=32768,
                        mscale=0.7,
                        mscale_all_dim=0.7,
                    ),
                ),
            ),
            "mscale is 0.7",
        ),
        (
            replace(QWEN, attention=replace(QWEN.attention, head_dim=64), rope=replace(QWEN.rope, dim=64)),
            "hidden_size / n_heads",
        ),
        (
            replace(LITE, rope=replace(LITE.rope, scaling=LinearScaling(factor=4.0))),
            "scaled linearly by 4, for which",
        ),
        (replace(QWEN, rope=replace(QWEN.rope, scaling=R1_LLAMA.rope.scaling)), "factors of Llama 3.1, which qwen2"),
        (replace(LITE, rope=replace(LITE.rope, scaling=R1_LLAMA.rope.scaling)), "factors of Llama 3.1, which deepsee"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_spec_that_llamacpp_would_misread_is_refused(spec, problem):
    with pytest.raises(ConfigError, match=problem):
        metadata_from_spec(spec)


def test_a_linear_scaling_by_one_is_none_for_llamacpp():
    spec = replace(LITE, rope=replace(LITE.rope, scaling=LinearScaling(factor=1.0)))
    assert llamacpp_differences(spec) == []
    assert metadata_from_spec(spec)["deepseek2.rope.scaling.factor"] == 1.0


@pytest.mark.parametrize(("eps", "is_told"), [(1e-6, False), (1e-5, False), (1e-3, True)])
def test_one_epsilon_for_all_norms_is_told_where_it_changes_logits(eps, is_told):
    """Measured on random models: 2e-5 of the largest logit with 1e-5, 2e-3 with 1e-3."""
    spec = spec_from_config(PUBLISHED["DeepSeek-V2-Lite"] | {"rms_norm_eps": eps})
    assert ["one epsilon for all norms" in text for text in llamacpp_differences(spec)] == [True] * is_told


@pytest.mark.parametrize("name", ["DeepSeek-V2-Lite", "DeepSeek-R1", "GLM-4.7-Flash"])
@pytest.mark.parametrize("more", [0, 3])
def test_experts_that_no_layer_has_are_none(name, more):
    """As in transformers and llama.cpp, where each layer before the first with experts is dense."""
    n_layers = PUBLISHED[name]["num_hidden_layers"]
    dense = (
        {"first_k_dense_replace": n_layers + more} if "GLM" not in name else {"mlp_layer_types": ["dense"] * n_layers}
    )
    spec = spec_from_config({k: v for k, v in PUBLISHED[name].items() if k != "first_k_dense_replace"} | dense)
    assert spec.moe is None
    spec = replace(spec, n_mtp_layers=0)
    metadata, weights = file_of(spec)
    assert spec_from_metadata(metadata, weights) == spec
    experts = {"expert_count": 8, "expert_group_count": 4, "leading_dense_block_count": n_layers + more}
    keys = {f"deepseek2.{key}": value for key, value in experts.items()}
    assert spec_from_metadata(metadata | keys, weights) == spec


def test_round_trip_of_qwen_with_yarn():
    yarn = YarnScaling(factor=4.0, original_max_position_embeddings=32768)
    spec = replace(QWEN, rope=replace(QWEN.rope, scaling=yarn))
    assert spec_from_metadata(*file_of(spec)) == spec


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"yarn_log_multiplier": None}, "mscale is 1.0 and mscale_all_dim 0.0"),
        ({"yarn_beta_fast": 8.0}, "beta_fast and beta_slow are not 32 and 1"),
        ({}, ""),
    ],
)
def test_yarn_that_llamacpp_computes_otherwise_is_told(changes, difference):
    """Its deepseek2 takes the betas of its options, and scales scores once more where there is no multiplier."""
    metadata, weights = file_of(LITE)
    metadata |= {f"deepseek2.rope.scaling.{name}": value for name, value in changes.items()}
    spec = spec_from_metadata({key: value for key, value in metadata.items() if value is not None}, weights)
    differences = llamacpp_differences(spec)
    assert [difference in text for text in differences] == ([True] if difference else [])


@pytest.mark.parametrize("name", ["GLM-4.7-Flash", "DeepSeek-V2-Lite", "DeepSeek-V2", "Qwen3-30B-A3B"])
def test_a_file_without_a_gating_function_has_the_one_that_llamacpp_takes(name):
    """Sigmoid for GLM-4.7-Flash, which llama.cpp knows by its layers and vocabulary, softmax for all others."""
    spec = spec_from_config(PUBLISHED[name])
    metadata, weights = file_of(spec)
    del metadata[f"{spec.architecture}.expert_gating_func"]
    assert spec_from_metadata(metadata, weights) == spec


def test_yarn_without_an_original_context_takes_the_context():
    metadata, weights = file_of(LITE)
    del metadata["deepseek2.rope.scaling.original_context_length"]
    assert spec_from_metadata(metadata, weights).rope.scaling.original_max_position_embeddings == LITE.max_context
