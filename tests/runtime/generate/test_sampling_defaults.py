"""The sampling parameters that a model brings: from both kinds of files, and back."""

import numpy as np
import pytest

from sprat.errors import InputError
from sprat.runtime.generate.options import split_options
from sprat.runtime.generate.sampling_defaults import (
    config_from_sampling,
    describe_sampling,
    metadata_from_sampling,
    sampling_from_config,
    sampling_from_metadata,
    unused_entries,
)

DEEPSEEK = {"temperature": 0.6, "top_p": 0.95, "do_sample": True, "bos_token_id": 0, "eos_token_id": 1}
EVERYTHING = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.01, "repetition_penalty": 1.05}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {}),
        (DEEPSEEK, {"temperature": 0.6, "top_p": 0.95}),
        (EVERYTHING, {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.01, "repeat_penalty": 1.05}),
        ({"do_sample": False}, {"temperature": 0.0}),
        ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.0}),
        ({"do_sample": True}, {}),
        ({"temperature": None, "top_k": 0}, {"top_k": 0}),
    ],
)
def test_parameters_of_a_generation_config(config, expected):
    assert sampling_from_config(config) == expected


@pytest.mark.parametrize(
    "config", [{"temperature": "hot"}, {"top_p": 1.5}, {"top_k": -1}, {"top_k": 2.5}, {"temperature": float("nan")}]
)
def test_a_value_out_of_range_is_an_error_that_names_the_file(config):
    with pytest.raises(InputError, match=f"folder/generation_config.json: .*{next(iter(config))} is"):
        sampling_from_config(config, "folder/generation_config.json")


def test_entries_that_only_transformers_uses_are_named_unless_they_change_nothing():
    config = DEEPSEEK | {
        "stop_strings": ["x"],
        "num_beams": 4,
        "typical_p": 1.0,
        "suppress_tokens": [],
        "min_length": 0,
    }
    assert unused_entries(config) == ["stop_strings", "num_beams"]
    assert unused_entries(DEEPSEEK | EVERYTHING | {"max_new_tokens": 9, "bad_words_ids": None}) == []


def test_metadata_keeps_the_parameters():
    for config in (DEEPSEEK, EVERYTHING, {"do_sample": False}):
        defaults = sampling_from_config(config)
        metadata = metadata_from_sampling(defaults)
        assert {type(value) for value in metadata.values()} <= {np.float32, np.int32}
        assert sampling_from_metadata(metadata) == defaults
        assert sampling_from_config(config_from_sampling(defaults)) == defaults


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("temp", -1.0, {"temperature": 0}),
        ("top_k", -1, {"top_k": 0}),
        ("top_p", 1.5, {"top_p": 1.0}),
        ("top_p", 0.0, {}),
        ("min_p", -0.5, {"min_p": 0}),
        ("penalty_repeat", 0.0, {}),
        ("temp", float("nan"), {}),
        ("temp", "hot", {}),
        ("temp", True, {}),
        ("temp", [0.6], {}),
        ("mirostat", 2, {}),
    ],
)
def test_a_gguf_of_others_is_read_as_llama_cpp_reads_it(key, value, expected):
    defaults = sampling_from_metadata({f"general.sampling.{key}": value})
    assert defaults == expected
    split_options({}, defaults)  # in range


def test_the_caller_overrides_the_model():
    sampling, _ = split_options({"temperature": 1.0, "top_k": 7}, {"temperature": 0.6, "top_p": 0.5})
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (1.0, 7, 0.5, 0.05)


def test_the_description_says_whose_a_parameter_is():
    assert describe_sampling({"temperature": 0.6}) == (
        "temperature 0.6 (the model's); top_k 40, top_p 0.95, min_p 0.05, repeat_penalty 1 (sprat's defaults)"
    )


@pytest.mark.parametrize("value", ["false", 0, 1, []])
def test_do_sample_that_is_no_boolean_is_an_error(value):
    with pytest.raises(InputError, match=r"do_sample is .*expected true or false"):
        sampling_from_config({"do_sample": value, "temperature": 0.6})
