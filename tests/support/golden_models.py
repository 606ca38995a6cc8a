"""The architectures and the tiny random models of each in ``tests/golden``: the list that tests and docs/models.md use.

``tests/golden/make_golden.py`` makes the logits with transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "GOLDEN",
    "GROUPS_OF_TWO",
    "MODELS",
    "NAMES",
    "ONE_EPSILON",
    "ModelRow",
    "config_of",
    "transformers_version",
    "with_field",
]

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/model.safetensors"))


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One architecture of ``config.json``.

    Attributes:
        architecture: as ``config.json`` names it.
        gguf: as GGUF's ``general.architecture`` names it.
        checkpoints: published checkpoints whose config is read.
        golden: folders in ``tests/golden``.
    """

    architecture: str
    gguf: str
    checkpoints: tuple[str, ...]
    golden: tuple[str, ...]


MODELS = (
    ModelRow(
        "LlamaForCausalLM",
        "llama",
        ("DeepSeek-R1-Distill-Llama-8B", "DeepSeek-R1-Distill-Llama-70B"),
        ("r1-distill-llama", "r1-distill-llama-odd", "deepseek-coder"),
    ),
    ModelRow(
        "Qwen2ForCausalLM",
        "qwen2",
        tuple(f"DeepSeek-R1-Distill-Qwen-{size}B" for size in ("1.5", "7", "14", "32")),
        ("r1-distill-qwen", "r1-distill-qwen-odd"),
    ),
    ModelRow(
        "DeepseekV2ForCausalLM",
        "deepseek2",
        (
            "DeepSeek-V2-Lite",
            "DeepSeek-V2-Lite-Chat",
            "DeepSeek-V2",
            "DeepSeek-V2-Chat",
            "DeepSeek-Coder-V2-Lite-Instruct",
        ),
        ("deepseek-v2-lite", "deepseek-v2-lite-odd", "deepseek-v2", "deepseek-v2-odd"),
    ),
    ModelRow(
        "DeepseekV3ForCausalLM",
        "deepseek2",
        ("DeepSeek-V3", "DeepSeek-V3.1", "DeepSeek-R1", "Moonlight-16B-A3B", "Moonlight-16B-A3B-Instruct"),
        ("deepseek-v3", "deepseek-v3-odd", "deepseek-v3-fp8", "deepseek-v3-small", "deepseek-v3-small-odd"),
    ),
    ModelRow(
        "Qwen3ForCausalLM",
        "qwen3",
        ("DeepSeek-R1-0528-Qwen3-8B", "Qwen3-0.6B", "Qwen3-8B"),
        ("r1-0528-qwen3", "r1-0528-qwen3-odd"),
    ),
    ModelRow("Qwen3MoeForCausalLM", "qwen3moe", ("Qwen3-30B-A3B",), ("qwen3-moe", "qwen3-moe-odd")),
    ModelRow("Glm4MoeLiteForCausalLM", "deepseek2", ("GLM-4.7-Flash",), ("glm-4.7-flash", "glm-4.7-flash-odd")),
    ModelRow("YoutuForCausalLM", "deepseek2", ("Youtu-LLM-2B",), ("youtu-llm", "youtu-llm-odd")),
)

GROUPS_OF_TWO = {"deepseek-v2", "deepseek-v2-odd"}
"""llama.cpp scores V2's groups of experts by their best two, DeepSeek by their best one."""

ONE_EPSILON = {"deepseek-v3-small-odd", "glm-4.7-flash-odd", "youtu-llm-odd"}
"""llama.cpp has one epsilon; here the latent norms' is another by more than the tolerance."""


def config_of(name: str) -> dict[str, object]:
    """The ``config.json`` of a golden folder."""
    config: dict[str, object] = json.loads((GOLDEN / name / "config.json").read_text())
    return config


def with_field(*fields: str) -> list[str]:
    """Golden folders whose config has one of ``fields``."""
    return [name for name in NAMES if any(config_of(name).get(field) for field in fields)]


def transformers_version() -> str:
    """The versions that made the logits."""
    made_with = json.loads((GOLDEN / "versions.json").read_text())
    return " and ".join(sorted({made_with[name]["transformers"] for name in NAMES}))
