"""Kinds of models that sprat does not read: each is named in its config, with a remedy."""

import pytest
from published_configs import PUBLISHED

from sprat.errors import ConfigError
from sprat.runtime.arch.config_kinds import _QUANT_METHODS
from sprat.runtime.arch.hf_config import spec_from_config

LLAMA = PUBLISHED["DeepSeek-R1-Distill-Llama-8B"]


def reason(**changes):
    with pytest.raises(ConfigError) as error:
        spec_from_config(LLAMA | changes)
    return str(error.value)


@pytest.mark.parametrize("method", _QUANT_METHODS)
def test_quantized_checkpoints_are_named(method):
    message = reason(quantization_config={"quant_method": method, "bits": 4})
    assert f"a checkpoint quantized with {_QUANT_METHODS[method]}" in message
    assert "export the original checkpoint" in message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "GPTQ"}}, "GPTQ"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_algo": "modelopt"}}, "ModelOpt"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX (4 bits)"),
    ],
)
def test_other_spellings_of_quantized_checkpoints(changes, named):
    assert named in reason(**changes)


@pytest.mark.slow
def test_every_quantizer_of_transformers_is_named_or_read():
    pytest.importorskip("transformers")
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    methods = {name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZATION_CONFIG_MAPPING}
    for method in methods:
        if method not in {"fp8", "mxfp8", "gguf"}:
            assert "a checkpoint quantized with" in reason(quantization_config={"quant_method": method})


@pytest.mark.parametrize("part", ["text_config", "vision_config", "audio_config", "language_config", "mm_vision_tower"])
def test_multimodal_wrappers_are_named(part):
    inner = {"architectures": ["Qwen2ForCausalLM"]} if part.startswith(("text", "language")) else {"hidden_size": 8}
    message = reason(architectures=["LlavaForConditionalGeneration"], **{part: inner})
    assert f"a multimodal wrapper, LlavaForConditionalGeneration with {part}" in message
    assert "save its language model alone" in message
    if "architectures" in inner:
        assert "Qwen2ForCausalLM" in message


@pytest.mark.parametrize(
    ("architecture", "named"),
    [
        ("BertModel", "a model without output head"),
        ("ModernBertForMaskedLM", "an encoder that fills in masked tokens"),
        ("XLMRobertaForSequenceClassification", "a classifier or a reward model"),
        ("LlamaForSequenceClassification", "a classifier or a reward model"),
        ("BertForPreTraining", "an encoder"),
        ("DistilBertForTokenClassification", "a classifier of tokens"),
        ("RobertaForQuestionAnswering", "a model for extractive question answering"),
        ("Qwen2Model", "a model without output head"),
        ("T5ForConditionalGeneration", "an encoder with a decoder"),
    ],
)
def test_encoders_and_other_heads_are_named(architecture, named):
    message = reason(architectures=[architecture])
    assert f"{architecture} is {named}" in message
    assert "ForCausalLM" in message


def test_an_encoder_with_a_decoder_is_named():
    assert "T5Model is an encoder-decoder model" in reason(architectures=["T5Model"], is_encoder_decoder=True)


def test_the_config_of_an_adapter_is_named():
    assert "the settings of a PEFT adapter (LORA); export its base model with --lora" in reason(peft_type="LORA")


def test_a_decoder_of_another_family_is_unknown_and_no_encoder():
    assert "unknown architecture 'GPT2LMHeadModel'" in reason(architectures=["GPT2LMHeadModel"])
