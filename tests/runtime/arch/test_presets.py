"""Presets against the parameter counts on Hugging Face and the published configs."""

import math

import pytest
from published_configs import PUBLISHED

from sprat.errors import InputError
from sprat.runtime.arch.architecture import architectures
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.presets import assumed_fields, find_preset, preset_config, preset_names, preset_spec
from sprat.runtime.arch.tensors import ROPE_FREQS, expected_tensors, is_routed_expert

# Totals of the safetensors indexes; for V3 and R1 without the MTP layer (684.5 B with it), for Moonlight without RoPE
# frequencies (15_960_111_936 with them), for tied embeddings without a second copy of them.
PARAMETERS = {
    "deepseek-coder-v2-lite": 15_706_484_224,
    "deepseek-r1": 671_026_419_200,
    "deepseek-v2": 235_741_434_880,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v3": 671_026_419_200,
    "deepseek-v3.1": 671_026_419_200,
    "glm-4.7-flash": 29_943_393_920,  # without the MTP layer
    "moonlight-16b-a3b": 15_960_110_208,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-14b": 14_768_307_200,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-32b": 32_762_123_264,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "r1-0528-qwen3-8b": 8_190_735_360,
    "r1-distill-llama-70b": 70_553_706_496,
    "r1-distill-llama-8b": 8_030_261_248,
    "r1-distill-qwen-1.5b": 1_777_088_000,
    "r1-distill-qwen-14b": 14_770_033_664,
    "r1-distill-qwen-32b": 32_763_876_352,
    "r1-distill-qwen-7b": 7_615_616_512,
    "smollm2-135m": 134_515_008,
    "youtu-llm-2b": 1_961_560_064,
}


# Published totals and active parameters of models of which not all dimensions are published
ROUNDED = {"gigachat3-10b-a1.8b": (10e9, 1.8e9), "kanana-2-30b-a3b": (30e9, 3e9)}


def test_every_preset_has_a_parameter_count():
    assert preset_names() == sorted([*PARAMETERS, *ROUNDED])


@pytest.mark.parametrize("name", ROUNDED)
def test_assumed_dimensions_give_the_published_totals(name):
    spec = preset_spec(name)
    sizes = {other: math.prod(shape) for other, shape in expected_tensors(spec).items()}
    routed = sum(size for other, size in sizes.items() if is_routed_expert(other))
    total = sum(sizes.values())
    active = total - routed + routed * spec.moe.n_experts_per_token // spec.moe.n_routed_experts
    assert (total, active) == pytest.approx(ROUNDED[name], rel=0.25)
    assert not architectures()[spec.architecture].why_not_llamacpp(spec)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_which_fields_are_assumed(name):
    config, assumed = preset_config(name), assumed_fields(name)
    assert (name in ROUNDED) == bool(assumed) == ("_published" in config)
    assert set(assumed) <= config.keys()
    assert not any(field in config.get("_published", "").partition(";")[0].split(", ") for field in assumed)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_parameter_count_is_that_of_the_published_weights(name):
    tensors = expected_tensors(preset_spec(name))
    assert sum(math.prod(shape) for other, shape in tensors.items() if other != ROPE_FREQS) == PARAMETERS[name]


@pytest.mark.parametrize("published", PUBLISHED)
def test_a_preset_gives_the_spec_of_the_published_config(published):
    name = find_preset(published)
    assert name is not None
    assert preset_spec(name) == spec_from_config(PUBLISHED[published])
    assert preset_config(name).items() <= PUBLISHED[published].items()


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V2-Lite-Chat", "DeepSeek-V2-Lite", "deepseek-v2-lite"])
def test_a_preset_is_found_with_hugging_faces_spelling(name):
    assert find_preset(name) == "deepseek-v2-lite"
    assert find_preset("ai-sage/GigaChat3-10B-A1.8B") == "gigachat3-10b-a1.8b"
    assert find_preset("kakaocorp/kanana-2-30b-a3b-instruct-2601") == "kanana-2-30b-a3b"
    assert find_preset("kakaocorp/kanana-2-30b-a3b-thinking") == "kanana-2-30b-a3b"


def test_fewer_layers_keep_everything_else():
    spec, short = preset_spec("deepseek-v2-lite"), preset_spec("deepseek-v2-lite", layers=6)
    assert short.n_layers == 6
    assert short.moe == spec.moe
    assert short.vocab_size == spec.vocab_size


def test_unknown_names_and_layers_are_refused():
    assert find_preset("gpt-2") is None
    with pytest.raises(InputError, match="did you mean 'r1-distill-qwen-7b'"):
        preset_config("r1-distill-qwen-7")
    with pytest.raises(InputError, match="layers is 28, expected 1 to 27"):
        preset_spec("deepseek-v2-lite", layers=28)
