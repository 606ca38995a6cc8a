"""Fields of a RoPE scaling that are null, zero or not read mean what transformers makes of them, or are an error."""

import json

import numpy as np
import pytest
from published_configs import PUBLISHED

from sprat.errors import ConfigError
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.rope import rope_frequencies, rope_magnitude

CONFIGS = {
    name: {key: value for key, value in PUBLISHED[name].items() if not key.startswith(("rope_", "quant", "auto_map"))}
    for name in ("DeepSeek-R1-Distill-Llama-8B", "DeepSeek-V2-Lite", "DeepSeek-R1", "Qwen3-0.6B")
}
LLAMA = CONFIGS["DeepSeek-R1-Distill-Llama-8B"]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
LLAMA3 = YARN | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LINEAR = {"rope_type": "linear", "factor": 4.0}

# Changes of YARN -> the same scaling, written out. The slow test compares each with transformers.
SAME = [
    ({"mscale": 1.0}, {}),
    ({"mscale": 1, "mscale_all_dim": 0}, {}),
    ({"mscale": None, "mscale_all_dim": 0.0}, {}),
    ({"mscale_all_dim": None}, {}),
    ({"beta_fast": None, "beta_slow": None, "attention_factor": None, "finetuned": None}, {}),
    ({"beta_fast": None, "mscale": 0.5, "mscale_all_dim": 0.5}, {"mscale": 0.5, "mscale_all_dim": 0.5}),
]


def scaled(name, **scaling):
    return CONFIGS[name] | {"rope_scaling": scaling}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("changes", "meaning"), SAME)
def test_null_and_zero_mean_the_default_where_transformers_says_so(name, changes, meaning):
    assert spec_from_config(scaled(name, **YARN, **changes)) == spec_from_config(scaled(name, **YARN, **meaning))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_factor_of_null_is_how_much_longer_the_context_is(name):
    factor = CONFIGS[name]["max_position_embeddings"] / 4096
    assert spec_from_config(scaled(name, **YARN | {"factor": None})).rope.scaling.factor == factor


@pytest.mark.parametrize(
    ("scaling", "named"),
    [
        (YARN | {"truncate": None}, "rope_scaling.truncate is null"),  # which is false for transformers
        (YARN | {"original_max_position_embeddings": None}, "rope_scaling.original_max_position_embeddings is null"),
        (YARN | {"rope_theta": None}, "rope_scaling.rope_theta is null"),
        (YARN | {"rope_type": None}, "rope_scaling.rope_type is null"),
        (YARN | {"type": None}, "rope_scaling.type is null"),
        (YARN | {"partial_rotary_factor": None}, "rope_scaling.partial_rotary_factor is null"),
        (LLAMA3 | {"factor": None}, "rope_scaling.factor is missing"),
        (LLAMA3 | {"low_freq_factor": None}, "rope_scaling.low_freq_factor is missing"),
        (LLAMA3 | {"original_max_position_embeddings": None}, "original_max_position_embeddings is null"),
        (LINEAR | {"factor": None}, "rope_scaling.factor is missing"),
        (YARN | {"mscale": 0.707}, "rope_scaling.mscale or mscale_all_dim is missing or 0"),
        (YARN | {"mscale": 0, "mscale_all_dim": 1}, "rope_scaling.mscale or mscale_all_dim is missing or 0"),
        (YARN | {"mscale": -1, "mscale_all_dim": 1}, "rope_scaling.mscale is -1; expected 0 or a positive number"),
        (YARN | {"mscale": True, "mscale_all_dim": 1}, "rope_scaling.mscale is True"),
    ],
)
def test_what_transformers_refuses_or_computes_otherwise_is_an_error(scaling, named):
    with pytest.raises(ConfigError, match=named):
        spec_from_config(LLAMA | {"rope_scaling": scaling})


@pytest.mark.parametrize("changes", [{"rope_theta": None}, {"hidden_act": None}])
def test_null_is_no_default_of_a_field_beside_the_scaling(changes):
    with pytest.raises(ConfigError, match=f"{next(iter(changes))} is null; expected a value, or no such field"):
        spec_from_config(LLAMA | changes)


def test_a_base_of_null_beside_the_new_spelling_is_not_read():
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    assert spec_from_config(LLAMA | new | {"rope_theta": None}) == spec_from_config(LLAMA | new)


@pytest.mark.parametrize("scaling", [LINEAR, {"rope_type": "default"}, None])
def test_an_original_context_that_the_scaling_does_not_read_is_no_problem(scaling):
    expected = spec_from_config(LLAMA | {"rope_scaling": scaling})
    context = {"original_max_position_embeddings": 4096}
    assert spec_from_config(LLAMA | {"rope_scaling": scaling} | context) == expected
    if scaling:
        assert spec_from_config(LLAMA | {"rope_scaling": scaling | context}) == expected


def of_transformers(transformers, config, folder):
    """Frequencies, magnitude, and scale of the scores."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1, "vocab_size": 8}))
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder)).model
    rotary = type(model.rotary_emb)(model.config)
    return rotary.inv_freq.numpy(), rotary.attention_scaling, model.layers[0].self_attn.scaling


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("changes", [*(changes for changes, _ in SAME), {"factor": None}])
def test_transformers_computes_the_same(name, changes, tmp_path):
    transformers = pytest.importorskip("transformers")
    spec = spec_from_config(scaled(name, **YARN | changes))
    frequencies, magnitude, scale = of_transformers(transformers, scaled(name, **YARN | changes), tmp_path / "model")
    np.testing.assert_allclose(rope_frequencies(spec.rope), frequencies, rtol=1e-5)
    assert (rope_magnitude(spec.rope), spec.attention.scale(spec.rope)) == pytest.approx((magnitude, scale), rel=1e-6)
