"""``config.json`` of every published checkpoint that sprat supports, and fields that must not be ignored."""

from __future__ import annotations

import math

import numpy as np
import pytest
from published_configs import PUBLISHED

from sprat.errors import ConfigError
from sprat.runtime.arch.attention import GroupedAttentionSpec, LatentAttentionSpec
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.moe import GroupScore, Scoring
from sprat.runtime.arch.rope import FrequencyFactors, YarnScaling, rope_magnitude
from sprat.runtime.arch.tensors import ROPE_FREQS, expected_tensors

N_PARAMETERS = {  # of the published tensors, from the model pages; V3 without MTP
    "DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "DeepSeek-R1-Distill-Qwen-14B": 14_770_033_664,
    "DeepSeek-R1-Distill-Qwen-32B": 32_763_876_352,
    "DeepSeek-R1-Distill-Llama-8B": 8_030_261_248,
    "DeepSeek-R1-Distill-Llama-70B": 70_553_706_496,
    "DeepSeek-V2-Lite": 15_706_484_224,
    "DeepSeek-V2-Lite-Chat": 15_706_484_224,
    "DeepSeek-V2": 235_741_434_880,
    "DeepSeek-V2-Chat": 235_741_434_880,
    "DeepSeek-V3": 671_026_419_200,
    "DeepSeek-R1": 671_026_419_200,
    "DeepSeek-V3.1": 671_026_419_200,
    "DeepSeek-Coder-V2-Lite-Instruct": 15_706_484_224,
    "Moonlight-16B-A3B": 15_960_110_208,  # 15_960_111_936 with the RoPE frequencies that the files hold
    "Moonlight-16B-A3B-Instruct": 15_960_110_208,
    "DeepSeek-R1-0528-Qwen3-8B": 8_190_735_360,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-8B": 8_190_735_360,
    "GLM-4.7-Flash": 29_943_393_920,  # without the MTP layer
    "Youtu-LLM-2B": 1_961_560_064,
    "Qwen3-30B-A3B": 30_532_122_624,
}
LITE, V2, V3 = PUBLISHED["DeepSeek-V2-Lite"], PUBLISHED["DeepSeek-V2"], PUBLISHED["DeepSeek-V3"]
GLM = PUBLISHED["GLM-4.7-Flash"]
QWEN3, QWEN3_MOE = PUBLISHED["DeepSeek-R1-0528-Qwen3-8B"], PUBLISHED["Qwen3-30B-A3B"]
QWEN, LLAMA = PUBLISHED["DeepSeek-R1-Distill-Qwen-1.5B"], PUBLISHED["DeepSeek-R1-Distill-Llama-8B"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoint_has_its_published_number_of_parameters(name):
    tensors = expected_tensors(spec_from_config(PUBLISHED[name]))
    assert sum(math.prod(shape) for key, shape in tensors.items() if key != ROPE_FREQS) == N_PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "n_layers", "n_heads", "n_kv_heads", "head_dim", "theta"),
    [
        ("DeepSeek-R1-Distill-Qwen-1.5B", 28, 12, 2, 128, 1e4),
        ("DeepSeek-R1-Distill-Qwen-7B", 28, 28, 4, 128, 1e4),
        ("DeepSeek-R1-Distill-Qwen-14B", 48, 40, 8, 128, 1e6),
        ("DeepSeek-R1-Distill-Qwen-32B", 64, 40, 8, 128, 1e6),
    ],
)
def test_qwen_distill(name, n_layers, n_heads, n_kv_heads, head_dim, theta):
    spec = spec_from_config(PUBLISHED[name])
    assert spec.architecture == "qwen2"
    assert spec.n_layers == n_layers
    expected = GroupedAttentionSpec(n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim, bias=True)
    assert spec.attention == expected
    assert not spec.tied_embeddings
    assert (spec.rope.theta, spec.rope.interleaved, spec.rope.scaling) == (theta, False, None)


@pytest.mark.parametrize(
    ("name", "n_layers", "n_heads"),
    [("DeepSeek-R1-Distill-Llama-8B", 32, 32), ("DeepSeek-R1-Distill-Llama-70B", 80, 64)],
)
def test_llama_distill(name, n_layers, n_heads):
    spec = spec_from_config(PUBLISHED[name])
    assert spec.architecture == "llama"
    assert spec.n_layers == n_layers
    assert spec.attention == GroupedAttentionSpec(n_heads=n_heads, n_kv_heads=8, head_dim=128)
    assert (spec.rope.theta, spec.rope.interleaved) == (5e5, True)
    assert isinstance(spec.rope.scaling, FrequencyFactors)
    factors = np.array(spec.rope.scaling.factors)
    assert factors.shape == (64,)
    assert (factors[0], factors[-1]) == (1.0, 8.0)
    assert (np.diff(factors) >= 0).all()


@pytest.mark.parametrize("name", ["DeepSeek-V2-Lite", "DeepSeek-V2-Lite-Chat"])
def test_v2_lite(name):
    spec = spec_from_config(PUBLISHED[name])
    assert spec.architecture == "deepseek2"
    assert isinstance(spec.attention, LatentAttentionSpec)
    assert spec.attention.q_lora_rank is None
    assert (spec.attention.latent_dim, spec.attention.qk_head_dim, spec.cache_elements_per_token) == (
        576,
        192,
        27 * 576,
    )
    moe = spec.moe
    assert (moe.n_routed_experts, moe.n_shared_experts, moe.n_experts_per_token, moe.n_dense_layers) == (64, 2, 6, 1)
    assert (moe.scoring, moe.normalize, moe.scaling) == (Scoring.SOFTMAX, False, 1.0)
    assert (moe.n_groups, moe.n_groups_per_token, moe.correction_bias) == (1, 1, False)
    assert spec.rope.scaling == YarnScaling(
        factor=40.0, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=0.707
    )


@pytest.mark.parametrize("name", ["DeepSeek-V2", "DeepSeek-V2-Chat"])
def test_v2(name):
    spec = spec_from_config(PUBLISHED[name])
    assert (spec.n_layers, spec.attention.n_heads, spec.attention.q_lora_rank) == (60, 128, 1536)
    moe = spec.moe
    assert (moe.n_routed_experts, moe.n_experts_per_token, moe.scaling) == (160, 6, 16.0)
    assert (moe.n_groups, moe.n_groups_per_token, moe.group_score) == (8, 3, GroupScore.MAX)


@pytest.mark.parametrize("name", ["DeepSeek-V3", "DeepSeek-R1"])
def test_v3(name):
    spec = spec_from_config(PUBLISHED[name])
    assert (spec.n_layers, spec.attention.q_lora_rank) == (
        61,
        1536,
    )  # without the MTP layer
    moe = spec.moe
    assert (moe.scoring, moe.correction_bias, moe.normalize, moe.scaling) == (Scoring.SIGMOID, True, True, 2.5)
    assert (moe.n_groups, moe.n_groups_per_token, moe.group_score) == (8, 4, GroupScore.TOP2_SUM)
    assert (moe.n_routed_experts, moe.n_experts_per_token, moe.n_dense_layers) == (256, 8, 3)


@pytest.mark.parametrize("name", ["Moonlight-16B-A3B", "Moonlight-16B-A3B-Instruct"])
def test_moonlight_has_v3s_routing_in_v2_lites_shape(name):
    spec = spec_from_config(PUBLISHED[name])
    assert (spec.architecture, spec.attention.q_lora_rank, spec.rope.scaling) == ("deepseek2", None, None)
    assert (spec.rms_norm_eps, spec.attention.norm_eps) == (1e-5, 1e-6)
    moe = spec.moe
    assert (moe.scoring, moe.correction_bias, moe.normalize, moe.scaling) == (Scoring.SIGMOID, True, True, 2.446)
    assert (moe.n_routed_experts, moe.n_shared_experts, moe.n_experts_per_token, moe.n_groups) == (64, 2, 6, 1)


@pytest.mark.parametrize(("name", "n_kv_heads"), [("DeepSeek-R1-0528-Qwen3-8B", 8), ("Qwen3-30B-A3B", 4)])
def test_qwen3_has_norms_of_heads_whose_width_is_not_that_of_the_hidden_states(name, n_kv_heads):
    spec = spec_from_config(PUBLISHED[name])
    expected = GroupedAttentionSpec(n_heads=32, n_kv_heads=n_kv_heads, head_dim=128, qk_norm=True)
    assert spec.attention == expected
    assert (spec.rope.theta, spec.rope.interleaved) == (1e6, False)


def test_r1_0528_has_yarn_as_transformers_applies_it():
    """Its ``attn_factor`` is read by neither transformers nor llama.cpp: the paper's magnitude stays."""
    rope = spec_from_config(PUBLISHED["DeepSeek-R1-0528-Qwen3-8B"]).rope
    assert rope.scaling == YarnScaling(factor=4.0, original_max_position_embeddings=32768)
    assert rope_magnitude(rope) == pytest.approx(1 + 0.1 * math.log(4))


def test_qwen3_moe_normalizes_a_softmax_and_shares_no_expert():
    spec = spec_from_config(PUBLISHED["Qwen3-30B-A3B"])
    moe = spec.moe
    assert (spec.architecture, moe.scoring, moe.normalize, moe.scaling) == ("qwen3moe", Scoring.SOFTMAX, True, 1.0)
    assert (moe.n_routed_experts, moe.n_experts_per_token, moe.n_shared_experts, moe.n_dense_layers) == (128, 8, 0, 0)


def test_glm_flash_is_v3s_routing_with_wide_values():
    spec = spec_from_config(PUBLISHED["GLM-4.7-Flash"])
    assert (spec.architecture, spec.attention.v_head_dim, spec.attention.qk_head_dim) == ("deepseek2", 256, 256)
    moe = spec.moe
    assert (moe.scoring, moe.scaling, moe.n_dense_layers, moe.n_groups) == (Scoring.SIGMOID, 1.8, 1, 1)


def test_glm_flash_has_a_list_of_layer_types():
    config = {name: value for name, value in PUBLISHED["GLM-4.7-Flash"].items() if name != "first_k_dense_replace"}
    assert spec_from_config(config).moe.n_dense_layers == 1
    config["mlp_layer_types"] = ["dense"] * 3 + ["sparse"] * 44
    assert spec_from_config(config).moe.n_dense_layers == 3


def test_youtu_is_dense_with_latent_attention():
    spec = spec_from_config(PUBLISHED["Youtu-LLM-2B"])
    assert (spec.architecture, spec.moe, spec.tied_embeddings) == ("deepseek2", None, True)
    assert isinstance(spec.attention, LatentAttentionSpec)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_of_transformers_5_gives_the_same_spec(name):
    """It has theta and scaling in ``rope_parameters``, renames torch_dtype, and adds derived fields."""
    config = dict(PUBLISHED[name])
    scaling = config.pop("rope_scaling", None) or {}
    kind = scaling.get("type", scaling.get("rope_type", "default"))
    config["rope_parameters"] = scaling | {"rope_theta": float(config.pop("rope_theta")), "rope_type": kind}
    config["dtype"] = config.pop("torch_dtype", "bfloat16")
    if config["model_type"] in {"qwen2", "qwen3"}:
        config |= {"layer_types": ["full_attention"] * config["num_hidden_layers"], "sliding_window": None}
    if config["model_type"].startswith("deepseek"):
        config |= {"head_dim": 64, "qk_head_dim": 192}
    assert spec_from_config(config) == spec_from_config(PUBLISHED[name])


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (QWEN, {"use_sliding_window": True, "max_window_layers": 28}),  # the layers from 28 on, of 28
        (QWEN3, {"use_sliding_window": True, "layer_types": ["full_attention"] * 36}),
        (LLAMA, {"hidden_act": "swish"}),
    ],
)
def test_values_that_change_no_computation_are_accepted(config, changes):
    assert spec_from_config(config | changes) == spec_from_config(config)


@pytest.mark.parametrize(
    ("config", "changes", "named"),
    [
        (QWEN, {"use_sliding_window": True}, "use_sliding_window"),
        (QWEN, {"layer_types": ["sliding_attention"] * 28}, "layer_types"),
        (QWEN, {"use_mrope": True}, "use_mrope"),
        (QWEN, {"hidden_act": "gelu"}, "hidden_act"),
        (QWEN3, {"layer_types": ["sliding_attention"] * 36}, "layer_types"),
        (QWEN3, {"rope_scaling": QWEN3["rope_scaling"] | {"attention_factor": 1.0}}, "rope_scaling.attention_factor"),
        (QWEN3_MOE, {"mlp_only_layers": [0]}, "mlp_only_layers"),
        (QWEN3_MOE, {"decoder_sparse_step": 2}, "decoder_sparse_step"),
        (GLM, {"mlp_layer_types": ["dense", "sparse", "dense"]}, "mlp_layer_types"),
        (GLM, {"mlp_layer_types": "dense"}, "mlp_layer_types"),
        (GLM, {"mlp_layer_types": ["dense", "dense", "sparse"]}, "first_k_dense_replace"),
        (GLM, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (LLAMA, {"attention_bias": True}, "attention_bias"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias"),
        (LLAMA, {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        (LLAMA, {"sliding_window": 4096}, "sliding_window"),
        (LLAMA, {"logit_scale": 0.5}, "logit_scale"),
        (LLAMA, {"quantization_config": {"quant_method": "gptq"}}, "GPTQ"),
        (LLAMA, {"rope_scaling": {"type": "linear"}}, "rope_scaling.factor is missing"),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": 1e9}}, "out of range"),
        (LLAMA, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling.type"),
        (LLAMA, {"rope_scaling": LLAMA["rope_scaling"] | {"high_freq_factor": 1.0}}, "rope_scaling.high_freq_factor"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (LITE, {"rope_scaling": LITE["rope_scaling"] | {"attention_factor": 1.3}}, "rope_scaling.attention_factor"),
        (LITE, {"rope_scaling": {"type": "yarn", "factor": 40, "mscale": 0.707}}, "rope_scaling.mscale"),
        (LITE, {"norm_topk_prob": True}, "norm_topk_prob"),
        (LITE, {"scoring_func": "sigmoid"}, "scoring_func"),
        (LITE, {"topk_method": "noaux_tc"}, "topk_method"),
        (LITE, {"moe_layer_freq": 2}, "moe_layer_freq"),
        (LITE, {"num_key_value_heads": 4}, "num_key_value_heads"),
        (LITE, {"index_topk": 2048}, "index_topk"),
        (V3, {"rope_interleave": False}, "rope_interleave"),
        (V3, {"topk_method": "greedy"}, "topk_method"),
        (V3, {"quantization_config": V3["quantization_config"] | {"fmt": "e5m2"}}, "quantization_config.fmt"),
        (V3, {"quantization_config": V3["quantization_config"] | {"weight_block_size": [0, 128]}}, "weight_block_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_field_that_changes_the_computation_is_an_error_that_names_it(config, changes, named):
    with pytest.raises(ConfigError, match=named):
        spec_from_config(config | changes)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "2048"}, "hidden_size is '2048'"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers is 1000"),
        ({"num_hidden_layers": 5000}, "5000 layers"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"rope_theta": 0}, "rope_theta is 0"),
        ({"rope_theta": 1.0}, "rope theta 1.0"),
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn'"),
        ({"qk_rope_head_dim": 63}, "63"),
        ({"num_experts_per_tok": 65}, "65 chosen experts"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"n_routed_experts": 2**30}, "1073741824 experts"),
        ({"first_k_dense_replace": None}, "first_k_dense_replace is missing"),
    ],
)
def test_invalid_values_are_named(changes, problem):
    with pytest.raises(ConfigError, match=problem):
        spec_from_config(LITE | changes)


def test_group_limits_must_leave_enough_experts():
    with pytest.raises(ConfigError, match="61 chosen experts in 3 groups of 20"):
        spec_from_config(V2 | {"num_experts_per_tok": 61})
    with pytest.raises(ConfigError, match="160 experts in 7 groups"):
        spec_from_config(V2 | {"n_group": 7})


def test_all_problems_are_in_one_error():
    with pytest.raises(ConfigError) as caught:
        spec_from_config(LLAMA | {"mlp_bias": True, "vocab_size": None, "clip_qkv": 8.0, "hidden_act": "relu"})
    assert all(name in str(caught.value) for name in ("mlp_bias", "vocab_size", "clip_qkv", "hidden_act"))


@pytest.mark.parametrize("found", [None, [], "LlamaForCausalLM", ["LlamaForCausalLM", "Qwen2ForCausalLM"], [7]])
def test_architectures_must_be_one_name(found):
    with pytest.raises(ConfigError, match="architectures"):
        spec_from_config(LLAMA | {"architectures": found})


def test_the_error_of_an_unknown_architecture_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'DeepseekV2ForCausalLM' or 'DeepseekV3ForCausalLM'"):
        spec_from_config(V3 | {"architectures": ["DeepseekV32ForCausalLM"]})
