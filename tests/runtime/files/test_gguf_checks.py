"""Files whose tensors, metadata and vocabulary disagree."""

import dataclasses

import numpy as np
import pytest
from tiny_checkpoint import CONFIGS

from sprat.errors import ModelFileError
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.files.gguf_checks import check_model, check_types

SPEC = spec_from_config(CONFIGS["deepseek2"])
SHAPES = expected_tensors(SPEC)
METADATA = {
    "tokenizer.ggml.tokens": ["a"] * 512,
    "tokenizer.ggml.token_type": np.ones(512, np.int32),
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 511,
}


def error_message(shapes=SHAPES, metadata=METADATA, spec=SPEC):
    with pytest.raises(ModelFileError) as caught:
        check_model(spec, shapes, metadata, "model.gguf")
    return str(caught.value)


def test_a_complete_model_passes():
    check_model(SPEC, SHAPES, METADATA, "model.gguf")
    check_model(SPEC, SHAPES, {}, "model.gguf")


def test_mtp_layers_are_not_unexpected():
    check_model(SPEC, SHAPES | {"blk.4.nextn.eh_proj.weight": (64, 128)}, METADATA, "model.gguf")


@pytest.mark.parametrize("name", ["blk.0.ffn_up_exps.scale", "blk.3.attn_output.input_scale", "output.scale"])
def test_scales_of_whole_tensors_are_named(name):
    """llama.cpp multiplies the product of ``ffn_up.weight`` by ``ffn_up.scale``; converters of NVFP4 write it."""
    with pytest.raises(ModelFileError, match=f"1 scales of tensors, such as '{name}' .*use a GGUF in another format"):
        check_model(SPEC, SHAPES | {name: (1,)}, METADATA, "model.gguf")
    with pytest.raises(ModelFileError, match="unexpected: 'scale'"):
        check_model(SPEC, SHAPES | {"scale": (1,)}, METADATA, "model.gguf")


def test_fewer_layers_than_in_the_metadata_are_an_error():
    message = error_message(spec=dataclasses.replace(SPEC, n_layers=5))
    assert "not a complete deepseek2 model of 5 layers and 512 tokens: 15 missing: 'blk.4.attn_norm.weight'" in message


def test_a_vocabulary_of_another_size_is_an_error():
    message = error_message(metadata=METADATA | {"tokenizer.ggml.tokens": ["a"] * 511})
    assert "tokenizer.ggml.tokens has 511 entries, expected 512 as in token_embd.weight" in message


@pytest.mark.parametrize("value", [512, -1, 2**32 - 1])
def test_the_id_of_a_special_token_may_name_no_token(value):
    check_model(SPEC, SHAPES, METADATA | {"tokenizer.ggml.padding_token_id": value}, "file")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("general.name", "str"),
        ("split.count", "int"),
        ("split.no", "int"),
        ("tokenizer.ggml.add_bos_token", "bool"),
        ("tokenizer.ggml.eos_token_id", "int"),
        ("tokenizer.ggml.tokens", "list"),
    ],
)
def test_an_array_for_a_key_of_another_type_is_an_error(key, expected):
    with pytest.raises(ModelFileError, match=f"model.gguf: {key} is of type ndarray, expected {expected}"):
        check_types(METADATA | {key: np.arange(512)}, "model.gguf")


def test_unknown_keys_may_have_any_type():
    check_types(
        METADATA | {"general.languages": ["en"], "general.quantized_by": 2, "tokenizer.ggml.other": np.arange(3)},
        "model.gguf",
    )


def test_all_problems_are_reported_at_once():
    shapes = SHAPES | {"blk.0.extra.weight": (1,), "output.weight": (512, 63)}
    del shapes["blk.1.attn_k_b.weight"]
    message = error_message(shapes, {"tokenizer.ggml.scores": np.zeros(3)})
    assert "1 missing: 'blk.1.attn_k_b.weight'" in message
    assert "1 unexpected: 'blk.0.extra.weight'" in message
    assert "1 with size mismatch: 'output.weight' is (512, 63), expected (512, 64)" in message
    assert "tokenizer.ggml.scores has 3 entries" in message
    assert message.startswith("model.gguf: ")
