"""Score a model on the packaged student's tasks: one judge for quantization, routing shortcuts and devices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sprat.demo.tasks import GENERATED, Problem, Split, generated, home, prose
from sprat.errors import InputError, unknown_name
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.runtime.chat.completions import Message
from sprat.runtime.engine import Engine

__all__ = ["TASKS", "Evaluation", "evaluate", "evaluate_prose", "wilson_interval"]

TASKS = (*GENERATED, "prose")

_MAX_TOKENS = 200
"""Longer than any right answer; a model that rambles is cut and wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a model scored.

    Attributes:
        task: one of `TASKS`.
        n: problems asked; for prose, tokens that had to be foretold.
        exact_match: share of them that were exactly right.
        interval: 95 % Wilson interval of that share.
        split: which problems: ``held_out`` or ``unseen``.
        seed: of the problems.
        valid_json: share of answers that are JSON with all keys (home).
        perplexity: per token (prose).
        kinds: kind of problem: right and asked.
    """

    task: str
    n: int
    exact_match: float
    interval: tuple[float, float]
    split: str
    seed: int
    valid_json: float | None = None
    perplexity: float | None = None
    kinds: dict[str, tuple[int, int]]


def evaluate(
    engine: Engine,
    task: str,
    *,
    n: int = 1000,
    seed: int = 1,
    split: str = "held_out",
    progress: ReportProgress = no_progress,
) -> Evaluation:
    """Ask `engine` `n` problems of `task`, greedily, and count the exactly right answers.

    Args:
        engine: a loaded model with a chat template.
        task: ``arithmetic``, ``home`` or ``prose``. Prose has no right answers: there the model is given texts, `n` at
            most, and counted is how many of their tokens it would have written itself.
        n: problems, or texts.
        seed: other seeds give other problems.
        split: ``held_out`` (known phrasings, new content) or ``unseen`` (new phrasings); prose has the first only.
        progress: called after each problem, with the score so far.

    Raises:
        InputError: an unknown task or split, or `n` below 1.
    """
    if task not in TASKS:
        raise InputError(unknown_name("task", task, TASKS))
    splits = {kind.value: kind for kind in (Split.HELD_OUT, Split.UNSEEN)}
    if split not in splits:
        raise InputError(unknown_name("split", split, splits))
    if n < 1:
        raise InputError(f"n is {n}, expected at least 1 problem")
    if task == "prose":
        return evaluate_prose(engine, prose.held_out_texts(limit=n), seed=seed, progress=progress)
    problems = list(itertools.islice(generated(task).problems(splits[split], seed=seed), n))
    return _evaluate_generated(engine, task, problems, split, seed, progress)


def evaluate_prose(
    engine: Engine, texts: Sequence[Problem], *, seed: int = 1, progress: ReportProgress = no_progress
) -> Evaluation:
    """Perplexity of `engine` on the answers of `texts`, of which each is given its question.

    Args:
        engine: a loaded model with a chat template and logits for every token.
        texts: at least one, as `sprat.demo.tasks.prose.held_out_texts` returns them.
        seed: only recorded: nothing is drawn.
        progress: called after each text, with the perplexity so far.
    """
    n_tokens = n_right = 0
    total_nats = 0.0
    for done, text in enumerate(texts, start=1):
        losses, foretold = _teacher_forced(engine, text)
        n_tokens += len(losses)
        n_right += int(foretold.sum())
        total_nats += float(losses.sum())
        progress(Progress(done, len(texts), f"perplexity {math.exp(total_nats / n_tokens):.2f}"))
    return Evaluation(
        task="prose",
        n=n_tokens,
        exact_match=n_right / n_tokens,
        interval=wilson_interval(n_right, n_tokens),
        split=Split.HELD_OUT.value,
        seed=seed,
        perplexity=math.exp(total_nats / n_tokens),
        kinds={},
    )


def wilson_interval(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval in which the true share lies with 95 % confidence (Wilson 1927); sane at 0 % and 100 %.

    Example:
        >>> tuple(round(bound, 3) for bound in wilson_interval(95, 100))
        (0.888, 0.978)
    """
    share = right / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    whole = 1 + z * z / n
    return max(0.0, (middle - spread) / whole), min(1.0, (middle + spread) / whole)


def _evaluate_generated(
    engine: Engine, task: str, problems: Sequence[Problem], split: str, seed: int, progress: ReportProgress
) -> Evaluation:
    is_correct = generated(task).is_correct
    kinds: dict[str, tuple[int, int]] = {}
    n_right = n_valid = 0
    for done, problem in enumerate(problems, start=1):
        answer = _answer(engine, problem.prompt)
        correct = is_correct(problem, answer)
        n_right += correct
        n_valid += task == "home" and home.is_valid(answer)
        right, asked = kinds.get(problem.kind, (0, 0))
        kinds[problem.kind] = (right + correct, asked + 1)
        progress(Progress(done, len(problems), f"{n_right} of {done} right"))
    return Evaluation(
        task=task,
        n=len(problems),
        exact_match=n_right / len(problems),
        interval=wilson_interval(n_right, len(problems)),
        split=split,
        seed=seed,
        valid_json=n_valid / len(problems) if task == "home" else None,
        kinds=dict(sorted(kinds.items())),
    )


def _answer(engine: Engine, prompt: str) -> str:
    messages = [Message(role="user", content=prompt)]
    reply = engine.chat(messages, temperature=0.0, max_tokens=_MAX_TOKENS)
    return reply["choices"][0]["message"]["content"]


def _teacher_forced(engine: Engine, text: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Loss in nats at each token of the answer, and whether it was the likeliest; the thought is closed beforehand."""
    chat = engine.encode_chat([Message(role="user", content=text.prompt)])
    prompt = [*chat.tokens, *engine.tokenizer.encode("</think>\n\n", add_bos=False, parse_special=True)]
    answer = [*engine.tokenizer.encode(text.answer, add_bos=False), *sorted(engine.tokenizer.eog_ids)[:1]]
    stream = engine.backend.new_stream(len(prompt) + len(answer))
    try:
        logits = stream.extend_all([*prompt, *answer[:-1]])[len(prompt) - 1 :].astype(np.float64)
    finally:
        stream.close()
    top = logits.max(axis=-1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(axis=-1))
    return log_sum - logits[np.arange(len(answer)), answer], logits.argmax(axis=-1) == answer
