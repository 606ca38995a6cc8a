"""Published models by name: plans before any download, files of random weights.

One model, one JSON file in this folder: the fields of its ``config.json`` that decide the shape.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from sprat.errors import InputError, unknown_name
from sprat.runtime.arch.hf_config import spec_from_config
from sprat.runtime.arch.spec import ModelSpec

__all__ = ["find_shape", "shape_config", "shape_names", "shape_spec"]


def shape_names() -> list[str]:
    """All shapes."""
    return sorted(entry.name.removesuffix(".json") for entry in _folder().iterdir() if entry.name.endswith(".json"))


def find_shape(name: str) -> str | None:
    """The shape behind a model's name, in any case and as Hugging Face spells it; ``None`` when there is none.

    Example:
        >>> find_shape("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"), find_shape("DeepSeek-V2-Lite-Chat")
        ('r1-distill-qwen-7b', 'deepseek-v2-lite')
    """
    plain = name.lower().rpartition("/")[2].removesuffix("-chat").replace("deepseek-r1-distill", "r1-distill")
    return plain if plain in shape_names() else None


def shape_config(name: str) -> dict[str, Any]:
    """The ``config.json`` of a model, as far as it decides the shape.

    Raises:
        InputError: no shape of this name, with the nearest one.
    """
    found = find_shape(name)
    if found is None:
        raise InputError(unknown_name("shape", name, shape_names()))
    config: dict[str, Any] = json.loads((_folder() / f"{found}.json").read_bytes())
    return config


def shape_spec(name: str, *, layers: int | None = None) -> ModelSpec:
    """The spec of a published model, or of its first ``layers`` layers.

    Raises:
        InputError: no shape of this name, or no such number of layers.
    """
    config = shape_config(name)
    if layers is not None:
        if not 1 <= layers <= config["num_hidden_layers"]:
            raise InputError(f"layers is {layers}, expected 1 to {config['num_hidden_layers']}, those of {name}")
        config["num_hidden_layers"] = layers
    return spec_from_config(config)


def _folder() -> Any:
    return resources.files("sprat.runtime.arch.presets")
