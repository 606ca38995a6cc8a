"""Presets: published models by name, to plan before a download and to benchmark with random weights.

Each is a JSON file in this folder with the fields of ``config.json`` that give the dimensions. Where only some of them
are published, ``_published`` says which and where, and ``_assumed`` lists the others: values of models of the same
family that give the published totals.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

from sprat.errors import InputError, unknown_name
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["assumed_fields", "find_preset", "preset_config", "preset_names", "preset_spec"]

# endings of names that have the dimensions of the model without them
_VARIANT = re.compile(r"(-chat|-instruct|-base|-mid|-thinking|-preview)?(-2601)?(-bf16|-fp8)?$")


def preset_names() -> list[str]:
    """Names of all presets, sorted."""
    return sorted(entry.name.removesuffix(".json") for entry in _folder().iterdir() if entry.name.endswith(".json"))


def find_preset(name: str) -> str | None:
    """The preset of a model's name, case-insensitive and with Hugging Face's spelling; ``None`` if there is none.

    Example:
        >>> find_preset("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"), find_preset("DeepSeek-V2-Lite-Chat")
        ('r1-distill-qwen-7b', 'deepseek-v2-lite')
    """
    plain = _VARIANT.sub("", name.lower().rpartition("/")[2]).replace("deepseek-r1-", "r1-")
    return plain if plain in preset_names() else None


def preset_config(name: str) -> dict[str, Any]:
    """The fields of a preset's ``config.json`` that give the dimensions.

    Raises:
        InputError: unknown preset; the message suggests the nearest one.
    """
    found = find_preset(name)
    if found is None:
        raise InputError(unknown_name("preset", name, preset_names()))
    config: dict[str, Any] = json.loads((_folder() / f"{found}.json").read_bytes())
    return config


def assumed_fields(name: str) -> list[str]:
    """The fields of a preset that are not published; empty for most.

    Raises:
        InputError: unknown preset.
    """
    return list(preset_config(name).get("_assumed", ()))


def preset_spec(name: str, *, layers: int | None = None) -> ModelSpec:
    """The spec of a published model, or of its first ``layers`` layers.

    Raises:
        InputError: unknown preset, or wrong number of layers.
    """
    config = preset_config(name)
    if layers is not None:
        if not 1 <= layers <= config["num_hidden_layers"]:
            raise InputError(f"layers is {layers}, expected 1 to {config['num_hidden_layers']}, those of {name}")
        config["num_hidden_layers"] = layers
    return spec_from_config(config)


def _folder() -> Any:
    return resources.files("sprat.runtime.arch.presets")
