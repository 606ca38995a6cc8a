"""Time saved by the prefix cache before the first token, and by speculative decoding after it.

``prefix_ttft_ratio`` is the median of pairs: the time to the first token of a prompt of 3,000 tokens and a question
without a prefix cache, over that with one that holds the 3,000. ``speculation_json_ratio`` is the median ratio of JSON
commands with ``speculate="auto"`` over ``"off"``, and ``speculation_worst_ratio`` the lowest of all kinds of answers.

    python benchmarks/prefix_and_speculation.py MODEL --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import asdict

import numpy as np

from sprat.app.bench.speculation import bench_speculation
from sprat.runtime.engine import Engine

_PREFIX, _QUESTION = 3000, 20  # tokens


def _prompt(engine: Engine, seed: int) -> list[int]:
    """The same prefix, and another question for each seed."""
    low, high = 3, engine.backend.vocab_size
    prefix = np.random.default_rng(1).integers(low, high, _PREFIX)
    return [*prefix.tolist(), *np.random.default_rng(seed + 2).integers(low, high, _QUESTION).tolist()]


def _first_token_s(engine: Engine, seed: int) -> float:
    prompt = _prompt(engine, seed)
    started = time.perf_counter()
    next(engine.generate(prompt, max_tokens=1, temperature=0.0))
    return time.perf_counter() - started


def prefix_ratios(model: str, repetitions: int) -> list[float]:
    """Time to the first token without a prefix cache over that with one, in pairs."""
    context = _PREFIX + 2 * _QUESTION
    with Engine.load(model, context=context, prefix_cache=False) as cold, Engine.load(model, context=context) as warm:
        _first_token_s(warm, 0)
        return [_first_token_s(cold, seed) / _first_token_s(warm, seed) for seed in range(1, repetitions + 1)]


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", help="bundles or model files; the keys are the worst of all")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--drafts", type=int, help="tokens that a pass may check; by default speculate='auto'")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    speeds = {
        model: bench_speculation(model, speculate=options.drafts or "auto", repetitions=options.repetitions)
        for model in options.model
    }
    prefixes = {model: prefix_ratios(model, options.repetitions) for model in options.model}
    in_json = ("commands", "json")
    found = {
        "prefix_ttft_ratio": min(map(statistics.median, prefixes.values())),
        "speculation_json_ratio": min(
            max(speed.ratio for speed in every if speed.answers in in_json) for every in speeds.values()
        ),
        "speculation_worst_ratio": min(speed.ratio for every in speeds.values() for speed in every),
        "load_average": os.getloadavg()[0],
        "prefixes": prefixes,
        "answers": {model: [asdict(speed) for speed in every] for model, every in speeds.items()},
    }
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
