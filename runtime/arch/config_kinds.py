"""Unsupported checkpoints that are recognized by their ``config.json``, with a remedy for each.

Checkpoints quantized by transformers or by other programs, and models other than text decoders: multimodal wrappers,
encoders, classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sprat.errors import ConfigError

__all__ = ["refuse_known_kinds"]

_ORIGINAL = "export the original checkpoint in BF16, F16 or F32 that it was made from; sprat quantizes it itself"
_QUANT_METHODS = {
    "aqlm": "AQLM",
    "auto-round": "AutoRound",
    "autoround": "AutoRound",
    "awq": "AWQ",
    "bitnet": "BitNet",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors (llm-compressor)",
    "compressed_tensors": "compressed-tensors (llm-compressor)",
    "eetq": "EETQ",
    "exl2": "ExLlamaV2",
    "exl3": "ExLlamaV3",
    "fbgemm_fp8": "FBGEMM FP8",
    "fouroversix": "Four Over Six",
    "fp_quant": "FP-Quant",
    "gemma": "Gemma's quantization",
    "gptq": "GPTQ",
    "gptqmodel": "GPTQ",
    "higgs": "HIGGS",
    "hqq": "HQQ",
    "marlin": "Marlin",
    "metal": "Metal",
    "modelopt": "NVIDIA ModelOpt",
    "mxfp4": "MXFP4",
    "nvfp4": "NVFP4",
    "quanto": "Quanto",
    "quark": "AMD Quark",
    "sinq": "SINQ",
    "spqr": "SpQR",
    "torchao": "torchao",
    "vptq": "VPTQ",
}
_PARTS = (
    "text_config",
    "language_config",
    "llm_config",
    "thinker_config",
    "vision_config",
    "visual",
    "audio_config",
    "mm_vision_tower",
)
_CAUSAL = "ForCausalLM"
_OTHER_HEADS = {
    "ForMaskedLM": "an encoder that fills in masked tokens",
    "ForPreTraining": "an encoder with the heads of its pretraining",
    "ForSequenceClassification": "a classifier or a reward model",
    "ForRewardModel": "a reward model",
    "ForTokenClassification": "a classifier of tokens",
    "ForQuestionAnswering": "a model for extractive question answering",
    "ForMultipleChoice": "a model for multiple choice",
    "ForNextSentencePrediction": "an encoder for next-sentence prediction",
    "ForConditionalGeneration": "an encoder with a decoder, or a multimodal model",
    "Model": "a model without output head, such as an encoder for embeddings",
}


def refuse_known_kinds(config: Mapping[str, Any]) -> None:
    """Refuse a config of a known kind that is not supported.

    Raises:
        ConfigError: the message names the kind, the field, and a remedy.
    """
    if kind := _quantized(config):
        raise ConfigError(f"config.json: a checkpoint quantized with {kind}, which sprat does not read; {_ORIGINAL}")
    for problem in (_adapter(config), _multimodal(config), _encoder(config)):
        if problem:
            raise ConfigError(f"config.json: {problem}")


def _quantized(config: Mapping[str, Any]) -> str | None:
    found = config.get("quantization_config") or config.get("compression_config")
    if isinstance(found, Mapping):
        method = found.get("quant_method", found.get("quant_algo"))
        if isinstance(method, str) and method.lower() in _QUANT_METHODS:
            return f"{_QUANT_METHODS[method.lower()]} (quant_method {method!r})"
        if found.get("load_in_4bit") is True or found.get("load_in_8bit") is True:
            return "bitsandbytes (load_in_4bit or load_in_8bit)"
    if isinstance(found := config.get("quantization"), Mapping) and "bits" in found:
        return f"MLX ({found['bits']} bits)"
    return None


def _adapter(config: Mapping[str, Any]) -> str | None:
    if "peft_type" not in config:
        return None
    return f"the settings of a PEFT adapter ({config['peft_type']}); export its base model with --lora FOLDER"


def _multimodal(config: Mapping[str, Any]) -> str | None:
    """Fields with the configs of several models."""
    parts = [name for name in _PARTS if config.get(name)]
    if not parts:
        return None
    none: Mapping[str, Any] = {}
    inner = next((config[name] for name in _PARTS[:4] if isinstance(config.get(name), Mapping)), none)
    text = f" (its language model: {inner.get('architectures') or inner.get('model_type') or 'not named'})"
    return (
        f"a multimodal wrapper, {_name(config)} with {', '.join(parts)}{text}; sprat runs text only: save its language "
        "model alone with transformers, for example model.language_model.save_pretrained(...), and export that"
    )


def _encoder(config: Mapping[str, Any]) -> str | None:
    name = _name(config)
    if config.get("is_encoder_decoder") is True:
        what = "an encoder-decoder model"
    else:
        what = next((what for suffix, what in _OTHER_HEADS.items() if name.endswith(suffix)), "")
    if not what or name.endswith((_CAUSAL, "LMHeadModel")):
        return None
    return (
        f"{name} is {what}; sprat runs decoders that generate text: use a checkpoint whose architecture is ...{_CAUSAL}"
    )


def _name(config: Mapping[str, Any]) -> str:
    found = config.get("architectures")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], str) else "this model"
