"""Decode speed on a GPU, predicted and measured, for the placements that a planner can choose.

python benchmarks/gpu.py OUT --device home-8c-16gb-8gpu --rounds 3 > rows.jsonl

Each round measures every placement once, so that a drift of the machine's speed meets all of them; the rows have the
median, and the last one says how far the planner's choice is from the fastest of the sweep.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sprat import Engine
from sprat.devices.plan.gpu import placement_problem
from sprat.devices.plan.placement import PlacedModel, Placement, PlacementProblem, best_placement, price
from sprat.devices.plan.plan import Plan
from sprat.devices.profile import find_profile
from sprat.runtime.memory.footprint import file_footprint
from sprat.runtime.open_model import open_model

_PROMPT = "The history of small computers begins with"
_STEPS = 8  # split points of a sweep, in layers and in layers with experts on the card


def sweep(problem: PlacementProblem) -> Iterator[PlacedModel]:
    """Placements that fit: nothing, some and all layers, and of MoE models the experts of some layers in memory."""
    n_layers = len(problem.layers)
    moe = [index for index, layer in enumerate(problem.layers) if layer.experts]
    candidates = [Placement(n_layers=n_layers)]
    candidates += [Placement(n_layers=n_layers, layers=count, head=True) for count in _points(n_layers)]
    candidates += [
        Placement(n_layers=n_layers, layers=n_layers, head=True, experts_in_memory=tuple(moe[:count]))
        for count in _points(len(moe))
        if count
    ]
    yield from (placed for placement in candidates if (placed := price(problem, placement)).fits)


def _points(count: int) -> list[int]:
    return sorted({round(step * count / _STEPS) for step in range(_STEPS + 1)})


def measure(path: Path, placement: Placement, n_tokens: int) -> float:
    """Tokens per second of decoding ``n_tokens`` after a short prompt."""
    with Engine.load(path, backend="llamacpp", gpu=placement) as engine:
        stream = engine.backend.new_stream(256)
        token = int(stream.forward(engine.encode(_PROMPT)).argmax())
        begin = time.perf_counter()
        for _ in range(n_tokens):
            token = int(stream.forward([token]).argmax())
        return n_tokens / (time.perf_counter() - begin)


def main() -> None:
    """Measure, and print one JSON object per placement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--device", required=True, help="profile of this machine, with its GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    profile, model = find_profile(arguments.device), open_model(Path(arguments.model))
    plan = Plan(profile, file_footprint(model.spec, model.file), profile.usable_bytes)
    if profile.accelerator is None or plan.predictor is None:
        sys.exit(f"{arguments.device}: no [accelerator] in this profile, or the model does not fit")
    times = plan.predictor.decode_parts(0)
    problem = placement_problem(profile.accelerator, plan.footprint, times, plan.usable_bytes)
    best, placements = best_placement(problem), list(sweep(problem))
    if best is not None and best not in placements:
        placements.append(best)
    speeds: list[list[float]] = [[] for _ in placements]
    for _ in range(arguments.rounds):
        for placed, measured in zip(placements, speeds, strict=True):
            measured.append(measure(model.file.path, placed.placement, arguments.tokens))
    medians = [statistics.median(measured) for measured in speeds]
    for placed, median in zip(placements, medians, strict=True):
        row = {"placement": placed.placement.text(), "predicted": 1 / placed.token_s, "measured": median}
        sys.stdout.write(json.dumps(row | {"chosen": placed == best, "rounds": arguments.rounds}) + "\n")
    if best is not None:
        share = medians[placements.index(best)] / max(medians)
        sys.stdout.write(json.dumps({"chosen, of the fastest": round(share, 3)}) + "\n")


if __name__ == "__main__":
    main()
