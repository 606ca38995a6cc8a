"""The model card; every value in it comes from the run's own measurements."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

from evaluation import QUANTS
from safetensors import safe_open

__all__ = ["write_card"]

_TEMPLATE = Path(__file__).with_name("model_card.md")


def write_card(checkpoint: Path, scores: Path, losses: Path) -> None:
    """Fill in ``model_card.md`` from the checkpoint, its scores and its training log, and write it as ``README.md``."""
    measured = json.loads(scores.read_text(encoding="utf-8"))
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    total, active = _parameters(checkpoint / "model.safetensors", config)
    # By step: a run that was interrupted and resumed has logged some steps twice.
    rows = {int(line.split(",")[0]): line.split(",") for line in losses.read_text(encoding="utf-8").splitlines()}
    fields = {
        **config,
        "parameters": f"{total / 1e6:.1f}",
        "active": f"{active / 1e6:.1f}",
        "active_share": f"{active / total:.0%}",
        "megabytes": f"{(checkpoint / 'model.safetensors').stat().st_size / 1e6:.1f}",
        "scores": _score_table(measured),
        "kinds": _kind_table(measured),
        "perplexity": f"{measured['prose']['perplexity']:.1f}",
        "perplexity_tokens": f"{measured['prose']['n']:,}",
        "samples": "\n".join(f"> **{sample['prompt']}** {sample['answer']}\n" for sample in measured["samples"]),
        "routing": _routing_table(measured["routing"]),
        "steps": f"{len(rows):,}",
        # The median: a run that was suspended has logged the pause as part of a step.
        "minutes": f"{median(float(row[-1]) for row in rows.values()) * len(rows) / 60:.0f}",
    }
    card = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(fields)
    (checkpoint / "README.md").write_text(card, encoding="utf-8")


def _parameters(weights: Path, config: dict[str, Any]) -> tuple[int, int]:
    """All parameters, and those that the forward pass of one token reads: its experts, and one row of the embedding."""
    total = active = 0
    with safe_open(weights, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - safe_open is not a dict
            n = math.prod(file.get_slice(name).get_shape())
            total += n
            if ".experts." in name:
                active += n * config["num_experts_per_tok"] // config["n_routed_experts"]
            elif "embed_tokens" in name:
                active += config["hidden_size"]
            else:
                active += n
    return total, active


def _score_table(measured: dict[str, Any]) -> str:
    phrasings = {"held_out": "known, new content", "unseen": "never trained on"}
    lines = [
        "| task | phrasings | weights | n | exact match | 95 % interval | valid JSON |",
        "|---|---|---|---|---|---|---|",
    ]
    for quant in QUANTS:
        for score in measured[quant].values():
            low, high = score["interval"]
            valid = "" if score["valid_json"] is None else f"{score['valid_json']:.1%}"
            cells = (score["task"], phrasings[score["split"]], quant, f"{score['n']:,}", f"{score['exact_match']:.1%}")
            lines.append(f"| {' | '.join(cells)} | {low:.1%} to {high:.1%} | {valid} |")
    return "\n".join(lines)


def _kind_table(measured: dict[str, Any]) -> str:
    kinds = measured[QUANTS[0]]["arithmetic held_out"]["kinds"]
    rows = (f"| {kind} | {right} of {asked} |" for kind, (right, asked) in sorted(kinds.items()))
    return "\n".join(["| kind | right |", "|---|---|", *rows])


def _routing_table(layers: list[dict[str, float]]) -> str:
    lines = [
        "| layer | experts used | entropy (1 is uniform) | busiest expert, share of tokens | reuse by next token |",
        "|---|---|---|---|---|",
    ]
    for index, layer in enumerate(layers, start=1):
        lines.append(
            f"| {index} | {layer['used']} | {layer['entropy']:.3f} | {layer['busiest']:.1%} | {layer['reuse']:.1%} |"
        )
    return "\n".join(lines)
