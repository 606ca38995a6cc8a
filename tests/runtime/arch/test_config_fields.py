"""Which fields of a config are harmless, which may stand side by side, and how the user names one that is harmless."""

import json
from dataclasses import fields

import pytest
from published_configs import PUBLISHED

from sprat.errors import ConfigError
from sprat.runtime.arch.fp8_config import fp8_block
from sprat.runtime.arch.hf_config import spec_from_config

LLAMA, QWEN = PUBLISHED["DeepSeek-R1-Distill-Llama-8B"], PUBLISHED["DeepSeek-R1-Distill-Qwen-1.5B"]
LITE, R1 = PUBLISHED["DeepSeek-V2-Lite"], PUBLISHED["DeepSeek-R1"]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    "marks",
    [
        {"_attn_implementation_autoset": True, "_name_or_path": "x", "_flash_attn_2_enabled": True, "_anything": [1]},
        {"_commit_hash": "abc", "_experts_implementation_internal": "eager", "_post_init_done": True},
        {"unsloth_version": "2026.11", "unsloth_fixed": True, "trl_version": "1.0", "llamafactory_stage": "sft"},
        {"transformers.js_config": {"dtype": "q4"}, "mergekit_version": "0.1", "model_name": "x", "axolotl_run": 1},
        {"bos_token": "<s>", "pad_token": None, "padding_side": "left", "model_max_length": 4096},
        {"dtype": "bfloat16", "torch_dtype": "bfloat16"},
        {"use_flash_attn": True, "attn_implementation": "sdpa", "base_model_tp_plan": {}, "num_logits_to_keep": 1},
        {"hidden_dropout": 0.1, "embedding_dropout": 0.1, "dropout": 0.0, "neftune_noise_alpha": 5},
    ],
    ids=lambda marks: next(iter(marks)),
)
def test_marks_of_writers_change_nothing(name, marks):
    assert spec_from_config(PUBLISHED[name] | marks) == spec_from_config(PUBLISHED[name])


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_spellings_of_rope_stand_side_by_side_when_equal(name):
    config = PUBLISHED[name]
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("type", scaling.get("rope_type", "default"))
    new = {"rope_parameters": scaling | {"rope_theta": config["rope_theta"], "rope_type": kind}}
    expected = spec_from_config(config)
    assert spec_from_config(config | new) == expected
    assert spec_from_config({n: v for n, v in config.items() if n != "rope_theta"} | new) == expected
    assert spec_from_config(config | {"rope_parameters": scaling | {"rope_type": kind}}) == expected


@pytest.mark.parametrize(
    ("config", "changes", "problem"),
    [
        (
            QWEN,
            {"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}},
            "rope_theta is 5.0 and 10000",
        ),
        (LITE, {"rope_parameters": {"rope_theta": 10000, "rope_type": "default"}}, "rope_parameters and rope_scaling"),
        (LLAMA, {"rope_parameters": LLAMA["rope_scaling"] | {"factor": 4.0}}, "rope_parameters and rope_scaling"),
        (LLAMA, {"rope_scaling": LLAMA["rope_scaling"] | {"type": "yarn"}}, "rope_scaling.rope_type and type"),
        (
            LLAMA,
            {"original_max_position_embeddings": 4096},
            "original_max_position_embeddings is 8192.0 and",
        ),
    ],
)
def test_contradicting_spellings_are_an_error(config, changes, problem):
    with pytest.raises(ConfigError, match=problem):
        spec_from_config(config | changes)


def test_the_original_context_may_stand_beside_the_scaling():
    scaling = {name: value for name, value in LLAMA["rope_scaling"].items() if not name.startswith("original")}
    moved = {"rope_scaling": scaling, "original_max_position_embeddings": 8192}
    assert spec_from_config(LLAMA | moved) == spec_from_config(LLAMA)


def test_an_unknown_field_is_named_with_the_option_that_declares_it_harmless():
    with pytest.raises(ConfigError, match=r"logit_scale is 0\.5, .*--ignore-config-field logit_scale$"):
        spec_from_config(LLAMA | {"logit_scale": 0.5})
    with pytest.raises(ConfigError, match=r"--ignore-config-field a_field --ignore-config-field rope_scaling\.b$"):
        spec_from_config(LLAMA | {"a_field": 1, "rope_scaling": LLAMA["rope_scaling"] | {"b": 2}})


@pytest.mark.parametrize("names", ["a_field", [5], [{}], 5, None])
def test_what_is_no_list_of_names_is_an_error(names):
    with pytest.raises(ConfigError, match="expected a list of names"):
        spec_from_config(LLAMA, ignore_fields=names)


def test_a_field_that_the_user_declares_harmless_is_ignored():
    changes = {"a_field": 1, "rope_scaling": LLAMA["rope_scaling"] | {"b": 2}}
    assert spec_from_config(LLAMA | changes, ignore_fields=["a_field", "rope_scaling.b"]) == spec_from_config(LLAMA)
    with pytest.raises(ConfigError, match=r"rope_scaling\.b is 2"):
        spec_from_config(LLAMA | changes, ignore_fields=["a_field"])


@pytest.mark.parametrize("name", ["no_such_field", "hidden_size", "attention_bias", "rope_scaling.factor", "use_cache"])
def test_a_known_or_absent_field_cannot_be_declared_harmless(name):
    with pytest.raises(ConfigError, match=f"{name} cannot be ignored"):
        spec_from_config(LLAMA, ignore_fields=[name])


def test_mathematics_that_sprat_lacks_cannot_be_declared_harmless():
    with pytest.raises(ConfigError, match="attention_bias is True; sprat supports only False"):
        spec_from_config(LLAMA | {"attention_bias": True}, ignore_fields=["attention_bias"])


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    "quantization",
    [
        {
            "activation_scheme": "dynamic",
            "dequantize": False,
            "modules_to_not_convert": None,
            "quant_method": "fp8",
            "scale_fmt": "float",
            "weight_block_size": [128, 128],
        },
        {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]},
        {
            "quant_method": "fp8",
            "activation_scheme": "static",
            "weight_block_size": None,
            "ignored_layers": ["lm_head"],
        },
        {"quant_method": "mxfp8", "modules_to_convert": ["embed_tokens"], "expert_dtype": "fp8"},
        None,
        {},
    ],
)
def test_fp8_configs_are_read_for_every_architecture(name, quantization):
    plain = {key: value for key, value in PUBLISHED[name].items() if key != "quantization_config"}
    assert spec_from_config(plain | {"quantization_config": quantization}) == spec_from_config(plain)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"fmt": "e5m2"}, "quantization_config.fmt"),
        ({"scale_fmt": "e5m3"}, "quantization_config.scale_fmt"),
        ({"expert_dtype": "fp4"}, "quantization_config.expert_dtype"),
        ({"quant_method": None}, "quantization_config.quant_method is missing"),
        ({"quant_method": "new"}, "quantization_config.quant_method is 'new'"),
        ({"weight_block_size": [128]}, "quantization_config.weight_block_size"),
        ({"weight_block_size": [0, 128]}, "quantization_config.weight_block_size"),
        ({"weight_block_size": [True, 128]}, "quantization_config.weight_block_size"),
        ({"rotation": 1}, "quantization_config.rotation is 1, a field that sprat does not know"),
    ],
)
def test_other_kinds_of_fp8_are_named(changes, named):
    with pytest.raises(ConfigError, match=named):
        spec_from_config(R1 | {"quantization_config": R1["quantization_config"] | changes})


@pytest.mark.parametrize(
    ("quantization", "block"),
    [
        ({"quant_method": "fp8"}, (128, 128)),
        ({"quant_method": "fp8", "weight_block_size": [64, 32]}, (64, 32)),
        ({"quant_method": "fp8", "weight_block_size": None}, None),
        ({"quant_method": "mxfp8"}, (1, 32)),
        ({}, (128, 128)),
    ],
)
def test_the_block_of_fp8_scales(quantization, block):
    assert fp8_block({"quantization_config": quantization}) == block


@pytest.mark.slow
def test_fp8_configs_of_transformers_are_read():
    transformers = pytest.importorskip("transformers")
    for options in ({}, {"scale_fmt": "ue8m0"}, {"dequantize": True}, {"activation_scheme": "static"}):
        written = transformers.FineGrainedFP8Config(**options).to_dict()
        config = LLAMA | {"quantization_config": json.loads(json.dumps(written, default=str))}
        assert spec_from_config(config) == spec_from_config(LLAMA)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_transformers_saves_means_the_same(name, tmp_path):
    """The config of a published checkpoint, read and written again by transformers, private attributes included."""
    transformers = pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    saved = json.loads(config.to_json_string(use_diff=False))
    saved |= {key: str(value) for key, value in vars(config).items() if key.startswith("_")}
    expected = spec_from_config(PUBLISHED[name])
    found = spec_from_config(saved | {"architectures": PUBLISHED[name]["architectures"]})
    assert {f.name: getattr(found, f.name) for f in fields(found)} == {
        f.name: getattr(expected, f.name) for f in fields(expected)
    }


def test_many_unknown_fields_are_cut_and_counted():
    unknown = {f"kind_{index}": index for index in range(40)}
    with pytest.raises(ConfigError) as error:
        spec_from_config(LLAMA | unknown)
    message = str(error.value)
    assert message.count("a field that sprat does not know") == 6
    assert "; and 34 more. A field" in message
    assert message.endswith("and so on for all 40 unknown fields")
