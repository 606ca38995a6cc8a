"""A checkpoint whose experts were removed by hand, in Hugging Face's terms: config and tensor names."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from tiny_checkpoint import CONFIGS, write_checkpoint, write_weights
from tiny_checkpoint import weights as random_weights

EXPERT = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(.*)")
ROUTER = re.compile(r"model\.layers\.(\d+)\.mlp\.gate\.(weight|e_score_correction_bias)")


def hand_pruned(weights: dict[str, np.ndarray], experts: dict[int, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights with these experts of each layer, renumbered from 0."""
    found = {}
    for name, value in weights.items():
        if match := EXPERT.fullmatch(name):
            layer, expert, rest = int(match[1]), int(match[2]), match[3]
            if expert in experts[layer]:
                found[f"model.layers.{layer}.mlp.experts.{experts[layer].index(expert)}.{rest}"] = value
        elif match := ROUTER.fullmatch(name):
            found[name] = value[list(experts[int(match[1])])]
        else:
            found[name] = value
    return found


def write_by_hand(folder: Path, experts: dict[int, tuple[int, ...]], **changes: Any) -> Path:
    """``write_checkpoint`` of the same weights, with these experts only."""
    n_kept = len(next(iter(experts.values())))
    write_checkpoint(folder, **changes | {"n_routed_experts": n_kept})
    write_weights(folder / "model.safetensors", hand_pruned(random_weights(CONFIGS["deepseek2"] | changes), experts))
    return folder
