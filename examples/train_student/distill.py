"""Sequence-level distillation: the teacher writes answers, the student will learn to write the same.

Answers are sampled in batches of questions with equally many tokens, so that no padding is needed. A batch is one
file with its own seed: an interrupted run goes on with the first batch that is missing, and ends the same.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from teacher_model import Teacher
from torch import Tensor

from sprat.demo.tasks import prose
from sprat.demo.tasks.split import Problem, Split

__all__ = ["plan_batches", "read_texts", "write_texts"]

TEXTS_PER_BATCH = 256
MAX_NEW_TOKENS = 112
MAX_QUESTION_TOKENS = 48
TEMPERATURE = 0.8
MIN_P = 0.05
"""Tokens less likely than this share of the likeliest are never drawn."""

_CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
_END = "<|im_end|>"
_SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9 ,.;:!?'()%\"-]+")
_MODEL_TALK = re.compile(
    r"\bAI\b|[Ll]anguage model|\bAs an\b|I'm sorry|I cannot|[Hh]ere('s| is| are)\b|^Sure\b|\b[Pp]aragraph|\bsentences"
)
_SPELLING = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "é": "e", "è": "e", "*": ""})


def plan_batches(teacher: Teacher, n_texts: int) -> list[list[str]]:
    """Questions in batches of equal token count, `n_texts` or a few more: held-out ones, then passes over others."""
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
    # Shuffled, so that a run which ends within a pass has questions of all lengths.
    random.Random(len(batches)).shuffle(batches)
    return batches


def _question_tokens(teacher: Teacher, question: str) -> list[int]:
    return list(teacher.tokenizer.encode(_CHAT.format(question)).ids)


def write_texts(teacher: Teacher, batches: list[list[str]], folder: Path, report: Callable[[int, int], None]) -> None:
    """Sample every batch that `folder` does not hold yet; `report(done, total)` after each."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, questions in enumerate(batches):
        path = folder / f"{index:04d}.jsonl"
        if not path.exists():
            answers = _sample(teacher, questions, seed=index)
            rows = [json.dumps({"prompt": q, "answer": a}) for q, a in zip(questions, answers, strict=True)]
            partial = path.with_suffix(".partial")
            partial.write_text("\n".join(rows) + "\n", encoding="utf-8")
            partial.rename(path)
        report(index + 1, len(batches))


@torch.inference_mode()
def _sample(teacher: Teacher, questions: list[str], seed: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor([_question_tokens(teacher, question) for question in questions])
    cache = teacher.new_cache(len(questions), MAX_QUESTION_TOKENS + MAX_NEW_TOKENS)
    end = teacher.tokenizer.token_to_id(_END)
    ended = torch.zeros(len(questions), dtype=torch.bool)
    position, drawn = 0, []
    for _ in range(MAX_NEW_TOKENS):
        logits = teacher.forward(tokens, cache, position)
        position += tokens.shape[1]
        tokens = _draw(logits.float(), generator)[:, None]
        drawn.append(tokens)
        ended |= tokens[:, 0] == end
        if bool(ended.all()):
            break
    return [_until(end, row, teacher) for row in torch.cat(drawn, dim=1).tolist()]


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One token per row: min-p, then Gumbel-max over the few candidates that are left."""
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
    """The usable answers of all batches in `folder`, each cut to whole sentences."""
    texts = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            answer = clean(row["answer"])
            if answer is not None:
                texts.append(Problem(prompt=row["prompt"], answer=answer, kind="prose"))
    return texts


def clean(answer: str) -> str | None:
    """One paragraph of up to six whole sentences in plain characters, or None when `answer` is no such thing.

    >>> clean('A lamp gives light. It stands on a table. It is')
    'A lamp gives light. It stands on a table.'
    """
    paragraph = " ".join(answer.translate(_SPELLING).split())
    sentences = _before_repetition([found.strip() for found in _SENTENCE.findall(paragraph)][:6])
    text = " ".join(sentences)
    usable = len(text.split()) >= 10 and _PLAIN.fullmatch(text) and not _MODEL_TALK.search(text)
    return text if usable else None


def _before_repetition(sentences: list[str]) -> list[str]:
    """The sentences before the first that begins like an earlier one: there the teacher starts to loop."""
    openings: set[str] = set()
    for n, sentence in enumerate(sentences):
        opening = " ".join(sentence.split()[:4])
        if opening in openings:
            return sentences[:n]
        openings.add(opening)
    return sentences
