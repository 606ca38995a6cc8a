"""Scores of a checkpoint as users run it: exported by sprat in BF16, int8 and int4, and evaluated by sprat."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from routing import count_routing

import sprat
from sprat.demo.tasks import GENERATED, Problem, Split

__all__ = ["QUANTS", "evaluate_exports"]

QUANTS = ("bf16", "int8", "int4")
"""The first has the checkpoint's own weights; only it is evaluated on unseen phrasings, prose and routing."""

_SAMPLES = 5
"""Held-out questions whose answers are shown: evenly spaced, since adjacent ones are often alike."""
_ROUTED = 100
"""Chats per task over which routing is counted."""


def evaluate_exports(
    checkpoint: Path, folder: Path, n: int, texts: Sequence[Problem], report: Callable[[str], None]
) -> dict[str, Any]:
    """Export to `folder`, and evaluate each export on `n` problems per task and the first one on `texts`, too.

    Returns:
        The evaluations by task and split of every quantization; for the first also ``samples`` and ``routing``.
    """
    n_experts = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["n_routed_experts"]
    scores: dict[str, Any] = {}
    for quant in QUANTS:
        sprat.export(checkpoint, folder / quant, quant=quant, force=True)
        with sprat.load(folder / quant) as engine:
            scores[quant] = _score(engine, n, Split.HELD_OUT, quant, report)
            if quant == QUANTS[0]:
                scores[quant] |= _score(engine, n, Split.UNSEEN, quant, report)
                scores["prose"] = asdict(
                    sprat.evaluate(engine, "prose", n=len(texts), texts=[(text.prompt, text.answer) for text in texts])
                )
                scores["samples"] = _samples(engine, texts[:: -(-len(texts) // _SAMPLES)])
                scores["routing"] = [asdict(layer) for layer in count_routing(engine, _chats(texts), n_experts)]
    return scores


def _score(engine: sprat.Engine, n: int, split: Split, quant: str, report: Callable[[str], None]) -> dict[str, Any]:
    scores = {}
    for task in GENERATED:
        result = sprat.evaluate(engine, task, n=n, split=split.value)
        low, high = result.interval
        report(f"{quant}: {task}, {split.value}: {result.exact_match:.1%} of {result.n} ({low:.1%} to {high:.1%})")
        scores[f"{task} {split.value}"] = asdict(result)
    return scores


def _samples(engine: sprat.Engine, texts: Sequence[Problem]) -> list[dict[str, str]]:
    """Greedy answers to the questions of `texts`."""
    samples = []
    for text in texts:
        reply = engine.chat([{"role": "user", "content": text.prompt}], temperature=0.0, max_tokens=160)
        samples.append({"prompt": text.prompt, "answer": reply["choices"][0]["message"]["content"]})
    return samples


def _chats(texts: Sequence[Problem]) -> list[Problem]:
    """`_ROUTED` held-out chats of every task."""
    streams = (task.problems(Split.HELD_OUT) for task in GENERATED.values())
    generated = itertools.chain.from_iterable(itertools.islice(stream, _ROUTED) for stream in streams)
    return [*generated, *texts[:_ROUTED]]
