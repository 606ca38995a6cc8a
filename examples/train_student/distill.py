"""Sequence-level distillation: the teacher writes answers, and the student is trained on them.

Answers are sampled in batches of questions of the same length, so no padding is needed. Each batch is one file with its
own seed: an interrupted run resumes with the first missing batch and ends with the same texts.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from plain_style import FEW_SHOT, clean, in_common_words
from teacher_model import Teacher
from torch import Tensor

from sprat.demo.tasks import Problem, Split, prose

__all__ = ["plan_batches", "read_texts", "write_texts"]

TEXTS_PER_BATCH = 256
MAX_NEW_TOKENS = 64
MAX_QUESTION_TOKENS = 48
TEMPERATURE = 0.7
MIN_P = 0.1
"""Tokens below this share of the highest probability are never sampled."""

_CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
_END = "<|im_end|>"
_PREFIX = "".join(f"{_CHAT.format(question)}{answer}{_END}\n" for question, answer in FEW_SHOT)
"""Precedes every question; its KV entries are computed once and shared."""


def plan_batches(teacher: Teacher, n_texts: int) -> list[list[str]]:
    """Questions in batches of equal length, `n_texts` or a few more: the held-out ones, then passes over the others."""
    passes = (prose.problems(Split.TRAIN, seed=seed) for seed in itertools.count())
    batches: list[list[str]] = []
    for questions in itertools.chain([prose.problems(Split.HELD_OUT)], passes):
        for batch in _equal_length_batches(teacher, questions):
            if sum(map(len, batches)) >= n_texts:
                return batches
            batches.append(batch)
    return batches


def _equal_length_batches(teacher: Teacher, questions: Iterator[Problem]) -> list[list[str]]:
    by_length: dict[int, list[str]] = defaultdict(list)
    for question in questions:
        by_length[len(_question_tokens(teacher, question.prompt))].append(question.prompt)
    groups = [by_length[length] for length in sorted(by_length)]
    batches = [group[i : i + TEXTS_PER_BATCH] for group in groups for i in range(0, len(group), TEXTS_PER_BATCH)]
    # Shuffled, so that a run that ends within a pass has questions of all lengths.
    random.Random(len(batches)).shuffle(batches)
    return batches


def _question_tokens(teacher: Teacher, question: str) -> list[int]:
    return list(teacher.tokenizer.encode(_CHAT.format(question)).ids)


def write_texts(teacher: Teacher, batches: list[list[str]], folder: Path, report: Callable[[int, int], None]) -> None:
    """Sample every batch that `folder` lacks, and call `report(done, total)` after each."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = _prefill_prefix(teacher)
    for index, questions in enumerate(batches):
        path = folder / f"{index:04d}.jsonl"
        if not path.exists():
            answers = _sample(teacher, prefix, questions, seed=index)
            rows = [json.dumps({"prompt": q, "answer": a}) for q, a in zip(questions, answers, strict=True)]
            partial = path.with_suffix(".partial")
            partial.write_text("\n".join(rows) + "\n", encoding="utf-8")
            partial.rename(path)
        report(index + 1, len(batches))


@torch.inference_mode()
def _prefill_prefix(teacher: Teacher) -> Tensor:
    """The KV cache of `_PREFIX`, for one text."""
    tokens = torch.tensor([teacher.tokenizer.encode(_PREFIX).ids])
    cache = teacher.new_cache(1, tokens.shape[1])
    teacher.forward(tokens, cache, 0, prefix=teacher.new_cache(1, 0))
    return cache


@torch.inference_mode()
def _sample(teacher: Teacher, prefix: Tensor, questions: list[str], seed: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor([_question_tokens(teacher, question) for question in questions])
    cache = teacher.new_cache(len(questions), MAX_QUESTION_TOKENS + MAX_NEW_TOKENS)
    end = teacher.tokenizer.token_to_id(_END)
    ended = torch.zeros(len(questions), dtype=torch.bool)
    position, sampled = 0, []
    for _ in range(MAX_NEW_TOKENS):
        logits = teacher.forward(tokens, cache, position, prefix)
        position += tokens.shape[1]
        tokens = _sample_token(logits.float(), generator)[:, None]
        sampled.append(tokens)
        ended |= tokens[:, 0] == end
        if bool(ended.all()):
            break
    return [_until(end, row, teacher) for row in torch.cat(sampled, dim=1).tolist()]


def _sample_token(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Sample one token per row: min-p, then Gumbel-max over the candidates that remain."""
    scaled = logits / TEMPERATURE
    floor = scaled.amax(-1, keepdim=True) + torch.log(torch.tensor(MIN_P))
    rows, candidates = (scaled > floor).nonzero(as_tuple=True)
    uniform = torch.rand(len(rows), generator=generator).clamp_min(1e-9)
    score = scaled[rows, candidates] - torch.log(-torch.log(uniform))
    best = torch.full((len(logits),), -torch.inf).scatter_reduce(0, rows, score, "amax")
    won = score == best[rows]
    return torch.zeros(len(logits), dtype=torch.long).scatter(0, rows[won], candidates[won])


def _until(end: int, row: list[int], teacher: Teacher) -> str:
    kept = row[: row.index(end)] if end in row else row
    return str(teacher.tokenizer.decode(kept))


def read_texts(folder: Path) -> list[Problem]:
    """The usable answers of all batches in `folder`, each cut to whole sentences in common words."""
    texts = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            answer = clean(row["answer"])
            if answer is not None:
                texts.append(Problem(prompt=row["prompt"], answer=answer, kind="prose"))
    return in_common_words(texts)
