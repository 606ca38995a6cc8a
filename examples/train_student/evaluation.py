"""Scores of a checkpoint as users get it: exported by sprat in BF16, int8 and int4, asked by `sprat.app.evaluate`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from routing import count_routing

from sprat.app.evaluate import Evaluation, evaluate, evaluate_prose
from sprat.demo.tasks import GENERATED, Problem, Split
from sprat.export.pipeline import export
from sprat.runtime.chat.completions import Message
from sprat.runtime.engine import Engine

__all__ = ["QUANTS", "judge"]

QUANTS = ("bf16", "int8", "int4")
"""The first is the checkpoint itself in another container; it alone is asked everything."""

_SAMPLES = 5
"""Held-out questions whose answers are shown: evenly spaced, since neighbours are often alike."""
_ROUTED = 100


def judge(
    checkpoint: Path, folder: Path, n: int, texts: Sequence[Problem], report: Callable[[str], None]
) -> dict[str, Any]:
    """Ask `n` problems per task and export, and for the held-out prose `texts`; the exports lie in `folder` afterwards.

    Returns:
        For every quantization the evaluations by task and split; for the first also ``samples`` and ``routing``.
    """
    n_experts = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["n_routed_experts"]
    scores: dict[str, Any] = {}
    for quant in QUANTS:
        export(checkpoint, folder / quant, quant=quant, force=True)
        with Engine.load(folder / quant) as engine:
            scores[quant] = _score(engine, n, Split.HELD_OUT, quant, report)
            if quant == QUANTS[0]:
                scores[quant] |= _score(engine, n, Split.UNSEEN, quant, report)
                scores["prose"] = asdict(evaluate_prose(engine, texts))
                scores["samples"] = _samples(engine, texts[:: -(-len(texts) // _SAMPLES)])
                scores["routing"] = [asdict(layer) for layer in count_routing(engine, _chats(texts), n_experts)]
    return scores


def _score(engine: Engine, n: int, split: Split, quant: str, report: Callable[[str], None]) -> dict[str, Any]:
    scores = {}
    for task in GENERATED:
        result = evaluate(engine, task, n=n, split=split.value)
        report(f"{quant}: {task}, {split.value}: {_line(result)}")
        scores[f"{task} {split.value}"] = asdict(result)
    return scores


def _line(result: Evaluation) -> str:
    low, high = result.interval
    return f"{result.exact_match:.1%} of {result.n} ({low:.1%} to {high:.1%})"


def _samples(engine: Engine, texts: Sequence[Problem]) -> list[dict[str, str]]:
    """Greedy answers to the questions of `texts`."""
    samples = []
    for text in texts:
        reply = engine.chat([Message(role="user", content=text.prompt)], temperature=0.0, max_tokens=160)
        samples.append({"prompt": text.prompt, "answer": reply["choices"][0]["message"]["content"]})
    return samples


def _chats(texts: Sequence[Problem]) -> list[Problem]:
    """Some held-out chats of every task."""
    streams = (task.problems(Split.HELD_OUT) for task in GENERATED.values())
    asked = itertools.chain.from_iterable(itertools.islice(stream, _ROUTED) for stream in streams)
    return [*asked, *texts[:_ROUTED]]
