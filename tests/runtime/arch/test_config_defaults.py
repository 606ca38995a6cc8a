"""A key that is not in ``config.json`` means what the architecture's config class in transformers makes of it."""

import json

import pytest
from published_configs import PUBLISHED
from transformers_defaults import of_transformers, stored

from sprat.errors import ConfigError
from sprat.runtime.arch.architecture import config_readers
from sprat.runtime.arch.hf_config import spec_from_config

DEFAULTS = stored()
CONFIGS = {config["architectures"][0]: config for config in PUBLISHED.values()}
QWEN, QWEN3_MOE = CONFIGS["Qwen2ForCausalLM"], CONFIGS["Qwen3MoeForCausalLM"]
LLAMA, V3, GLM = (CONFIGS[f"{name}ForCausalLM"] for name in ("Llama", "DeepseekV3", "Glm4MoeLite"))


def meaning(config):
    """The spec, or "refused"."""
    try:
        return spec_from_config(config)
    except ConfigError:
        return "refused"


def test_every_architecture_is_compared():
    of_sprat = {name for name, reader in config_readers().items() if reader.__module__.startswith("sprat.")}
    assert DEFAULTS.keys() == CONFIGS.keys() == of_sprat  # other tests add readers


# DeepSeek's class says 128 heads of keys whatever the heads of queries; latent attention has as many as of queries
UNREAD = {("DeepseekV3ForCausalLM", "num_key_value_heads")}
KEYS = sorted({(name, key) for name, keys in DEFAULTS.items() for key in keys} - UNREAD)


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_an_absent_key_means_transformers_default(name, key):
    absent = {field: value for field, value in CONFIGS[name].items() if field != key}
    assert meaning(absent) == meaning(absent | {key: DEFAULTS[name][key]})


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_config_with_nothing_but_its_architecture_is_transformers_default_model(name):
    found = meaning({"architectures": [name]})
    assert found == meaning({"architectures": [name]} | DEFAULTS[name])
    assert (found == "refused") == (name == "DeepseekV2ForCausalLM")  # whose num_experts_per_tok has no default


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_those_of_the_installed_transformers(name):
    transformers = pytest.importorskip("transformers")
    assert of_transformers()[name] == DEFAULTS[name], "run python tests/support/transformers_defaults.py"
    derived = json.loads(getattr(transformers, name).config_class().to_json_string(use_diff=False))
    assert meaning(derived | {"architectures": [name]}) == meaning({"architectures": [name]})


def test_null_is_not_absent():
    """V2-Lite's ``q_lora_rank`` is null: no rank, where an absent one is 1536."""
    assert spec_from_config(V3 | {"q_lora_rank": None}).attention.q_lora_rank is None
    with pytest.raises(ConfigError, match="n_group is missing"):
        spec_from_config(V3 | {"n_group": None})


@pytest.mark.parametrize(
    ("config", "name", "alias"),
    [
        (V3, "n_routed_experts", "num_local_experts"),
        (GLM, "n_routed_experts", "num_local_experts"),
        (QWEN3_MOE, "num_experts", "num_local_experts"),
        (CONFIGS["DeepseekV2ForCausalLM"], "n_routed_experts", "num_experts"),
    ],
)
def test_a_field_may_have_its_other_name_in_transformers(config, name, alias):
    renamed = {field: value for field, value in config.items() if field != name} | {alias: config[name]}
    assert spec_from_config(renamed) == spec_from_config(config | {alias: config[name]}) == spec_from_config(config)
    with pytest.raises(ConfigError, match=f"{name} and {alias} contradict each other"):
        spec_from_config(config | {alias: config[name] * 2})


@pytest.mark.parametrize("config", [QWEN, CONFIGS["Qwen3ForCausalLM"], QWEN3_MOE], ids=["qwen2", "qwen3", "qwen3moe"])
def test_a_window_as_long_as_the_context_is_full_attention(config):
    context = config["max_position_embeddings"]
    n_layers = config["num_hidden_layers"]
    window = {"use_sliding_window": True, "sliding_window": context, "max_window_layers": 0}
    assert spec_from_config(config | window) == spec_from_config(config)
    layers = {"layer_types": ["full_attention"] * (n_layers - 1) + ["sliding_attention"]}
    assert spec_from_config(config | window | layers) == spec_from_config(config)
    for changes in ({"sliding_window": context - 1}, {"layer_types": ["chunked_attention"] * n_layers}):
        with pytest.raises(ConfigError, match=r"use_sliding_window|layer_types"):
            spec_from_config(config | window | changes)


@pytest.mark.parametrize("changes", [{"sliding_window": 4096}, {"use_sliding_window": False}])
def test_windows_that_are_not_used_change_nothing(changes):
    assert spec_from_config(QWEN | changes) == spec_from_config(QWEN)


def test_a_scaling_without_an_original_context_takes_the_context():
    scaling = {"rope_type": "yarn", "factor": 4.0}
    said = scaling | {"original_max_position_embeddings": LLAMA["max_position_embeddings"]}
    assert spec_from_config(LLAMA | {"rope_scaling": scaling}) == spec_from_config(LLAMA | {"rope_scaling": said})
