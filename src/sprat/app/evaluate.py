"""``sprat eval``: a model's score on the tasks of the packaged student, or on a user's own questions."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sprat.app.questions import Question, read_questions
from sprat.boundary import public_call
from sprat.demo.tasks import GENERATED, Problem, Split, generated, home, prose
from sprat.errors import InputError, unknown_name
from sprat.files import checked_path
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.runtime.chat.completions import Message
from sprat.runtime.engine import Engine

__all__ = ["TASKS", "Evaluation", "Reply", "evaluate", "wilson_interval"]

TASKS = (*GENERATED, "prose")

_MAX_TOKENS = 200
"""Longer than any correct answer; an answer that is cut off here counts as wrong."""
_MAX_TOKENS_OF_FILE = 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """The model's reply to one of the user's questions."""

    prompt: str
    expected: tuple[str, ...]
    reply: str
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The score of a model on one task.

    Attributes:
        task: ``arithmetic``, ``home`` or ``prose``; the name of a file of questions.
        n: problems; for prose, scored tokens.
        exact_match: share of problems that were answered right; for prose, next-token accuracy.
        interval: 95 % Wilson interval of that share.
        split: ``held_out`` or ``unseen`` problems; ``file`` for a file of questions.
        seed: seed of the problem generator.
        valid_json: share of answers that are JSON with all keys (home only).
        perplexity: of the scored tokens (prose only).
        kinds: kind of problem: (right, asked).
        replies: to each question of a file.
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
    replies: tuple[Reply, ...] = ()


@public_call
def evaluate(
    engine: Engine,
    task: str | None = None,
    *,
    file: str | os.PathLike[str] | None = None,
    max_tokens: int | None = None,
    n: int = 1000,
    seed: int = 1,
    split: str = "held_out",
    texts: Sequence[tuple[str, str]] | None = None,
    progress: ReportProgress = no_progress,
) -> Evaluation:
    """Score a model: it answers problems greedily, and the share of right answers is the score.

    Args:
        engine: a loaded model with a chat template.
        task: ``"arithmetic"``, ``"home"`` or ``"prose"``. Prose is scored by perplexity and next-token accuracy on
            reference answers, since it has no single right answer.
        file: instead of a task, your own questions: JSON lines as :class:`~sprat.app.questions.Question`.
        max_tokens: longest reply to a question of the file, reasoning included; by default 1024. A reply that is cut
            off counts as it is.
        n: number of problems; for prose, the largest number of texts.
        seed: seed of the problem generator.
        split: ``"held_out"`` (phrasings of the training set, new content) or ``"unseen"`` (new phrasings); prose is
            ``"held_out"`` only.
        texts: for prose: pairs of a question and its reference answer, instead of the packaged ones.
        progress: called after each problem, with the score so far.

    Raises:
        InputError: an unknown task or split, ``n`` below 1, ``texts`` that are empty or not for prose, or a file that
            holds something else than questions.
    """
    if (task is None) == (file is None):
        raise InputError("expected a task or a file of questions; give one of them")
    if n < 1:
        raise InputError(f"n is {n}, expected at least 1 problem")
    if task is None:
        if texts is not None:
            raise InputError("texts are for the task prose, not for a file of questions; omit one of them")
        path = checked_path(file, "file")
        limit = _MAX_TOKENS_OF_FILE if max_tokens is None else max_tokens
        return _evaluate_file(engine, path.name, read_questions(path)[:n], limit, progress)
    if max_tokens is not None:
        raise InputError("max_tokens is for a file of questions; omit it, a task has its own limit")
    kind = _checked_split(task, split, texts)
    if task == "prose":
        packaged = ((text.prompt, text.answer) for text in prose.held_out_texts(limit=n))
        return _evaluate_prose(engine, texts[:n] if texts else list(packaged), seed, progress)
    problems = list(itertools.islice(generated(task).problems(kind, seed=seed), n))
    return _evaluate_generated(engine, task, problems, split, seed, progress)


def _checked_split(task: str, split: str, texts: Sequence[tuple[str, str]] | None) -> Split:
    if task not in TASKS:
        raise InputError(unknown_name("task", task, TASKS))
    splits = {kind.value: kind for kind in (Split.HELD_OUT, Split.UNSEEN)}
    if split not in splits:
        raise InputError(unknown_name("split", split, splits))
    if texts is not None and (task != "prose" or not texts):
        raise InputError(f"texts: expected at least one, and the task prose; found {len(texts)}, and the task {task}")
    return splits[split]


def wilson_interval(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson 1927); inside [0, 1] also when none or all of ``n`` are right.

    Example:
        >>> tuple(round(bound, 3) for bound in wilson_interval(95, 100))
        (0.888, 0.978)
    """
    share = right / n
    center = share + z * z / (2 * n)
    half_width = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (center - half_width) / scale), min(1.0, (center + half_width) / scale)


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


def _evaluate_file(
    engine: Engine, name: str, questions: Sequence[Question], max_tokens: int, progress: ReportProgress
) -> Evaluation:
    replies: list[Reply] = []
    kinds: dict[str, tuple[int, int]] = {}
    for question in questions:
        reply = _answer(engine, question.prompt, question.system, max_tokens)
        replies.append(Reply(question.prompt, tuple(question.answers), reply, question.is_right(reply)))
        right, asked = kinds.get(question.kind, (0, 0))
        kinds[question.kind] = (right + replies[-1].right, asked + 1)
        n_right = sum(found.right for found in replies)
        progress(Progress(len(replies), len(questions), f"{n_right} of {len(replies)} right"))
    return Evaluation(
        task=name,
        n=len(replies),
        exact_match=n_right / len(replies),
        interval=wilson_interval(n_right, len(replies)),
        split="file",
        seed=0,
        kinds=dict(sorted(kinds.items())) if set(kinds) != {""} else {},
        replies=tuple(replies),
    )


def _evaluate_prose(
    engine: Engine, texts: Sequence[tuple[str, str]], seed: int, progress: ReportProgress
) -> Evaluation:
    """Perplexity of a model on reference answers, each given its question; nothing is sampled."""
    if not all(len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in texts):
        raise InputError("texts holds something else than pairs of question and answer, both text")
    n_tokens = n_correct = 0
    sum_nats = 0.0
    for done, (question, answer) in enumerate(texts, start=1):
        nats, correct = _teacher_forced(engine, question, answer)
        n_tokens += len(nats)
        n_correct += int(correct.sum())
        sum_nats += float(nats.sum())
        progress(Progress(done, len(texts), f"perplexity {math.exp(sum_nats / n_tokens):.2f}"))
    return Evaluation(
        task="prose",
        n=n_tokens,
        exact_match=n_correct / n_tokens,
        interval=wilson_interval(n_correct, n_tokens),
        split=Split.HELD_OUT.value,
        seed=seed,
        perplexity=math.exp(sum_nats / n_tokens),
        kinds={},
    )


def _answer(engine: Engine, prompt: str, system: str = "", max_tokens: int = _MAX_TOKENS) -> str:
    messages = [Message(role="system", content=system)] if system else []
    messages.append(Message(role="user", content=prompt))
    reply = engine.chat(messages, temperature=0.0, max_tokens=max_tokens)
    return reply["choices"][0]["message"]["content"]


def _teacher_forced(engine: Engine, question: str, answer: str) -> tuple[np.ndarray, np.ndarray]:
    """For each token of the answer: its loss in nats, and whether it has the highest logit.

    The prompt ends with ``</think>``, so that the model does not reason first.
    """
    chat = engine.encode_chat([Message(role="user", content=question)])
    prompt = [*chat.tokens, *engine.tokenizer.encode("</think>\n\n", add_bos=False, parse_special=True)]
    targets = [*engine.tokenizer.encode(answer, add_bos=False), *sorted(engine.tokenizer.eog_ids)[:1]]
    stream = engine.backend.new_stream(len(prompt) + len(targets))
    try:
        logits = stream.forward_all([*prompt, *targets[:-1]])[len(prompt) - 1 :].astype(np.float64)
    finally:
        stream.close()
    top = logits.max(axis=-1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(axis=-1))
    return log_sum - logits[np.arange(len(targets)), targets], logits.argmax(axis=-1) == targets
