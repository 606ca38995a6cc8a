"""Training batches: problems of the three tasks, packed into rows.

A batch is a function of its step number and nothing else, so a resumed run sees what the first one would have seen.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from phases import phase_at
from tokenizers import Tokenizer
from torch import Tensor
from vocabulary import PAD, chat_prompt, completion

from sprat.demo.tasks import arithmetic, home
from sprat.demo.tasks.split import Problem, Split

__all__ = ["TASKS", "Batch", "BatchMaker", "Document"]

TASKS = ("arithmetic", "home", "prose")
ROWS, ROW_LENGTH = 16, 256
_POOL = 48
_HEAD_ROWS = 512
"""The output head's rows are rounded up to a multiple of this: few matrix shapes, see `grouped.py`."""


@dataclass(frozen=True, slots=True)
class Document:
    """One exchange in tokens; only those from `answer_at` on are learnt."""

    tokens: list[int]
    answer_at: int
    task: int


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens`, `positions`, `documents`: (rows, n). `wanted`, `targets`, `tasks`: (m,), task -1 for padding."""

    tokens: Tensor
    positions: Tensor
    documents: Tensor
    wanted: Tensor
    targets: Tensor
    tasks: Tensor


class BatchMaker:
    """Draws problems, encodes and packs them."""

    def __init__(self, tokenizer: Tokenizer, texts: list[Problem]) -> None:
        self._tokenizer = tokenizer
        self._texts = texts
        self._pad: int = tokenizer.token_to_id(PAD)

    def __call__(self, step: int) -> Batch:
        """The batch of training step `step`."""
        documents = self._documents(step)
        pool: list[Document] = []
        rows = []
        for _ in range(ROWS):
            pool += itertools.islice(documents, _POOL - len(pool))
            rows.append(_take_row(pool))
        return self._collate(rows)

    def encode(self, problem: Problem, task: int) -> Document:
        """One problem as the chat template and the model's answer spell it."""
        prompt = self._tokenizer.encode(chat_prompt(problem.prompt), add_special_tokens=False).ids
        answer = self._tokenizer.encode(completion(problem.reasoning, problem.answer), add_special_tokens=False).ids
        return Document((prompt + answer)[: ROW_LENGTH + 1], len(prompt), task)

    def _documents(self, step: int) -> Iterator[Document]:
        rng = random.Random(step)
        phase, _ = phase_at(step)
        prose = iter(lambda: rng.choice(self._texts), None)
        streams = (
            arithmetic.problems(Split.TRAIN, seed=step),
            home.problems(Split.TRAIN, seed=step),
            prose,
        )
        while True:
            task = rng.choices(range(len(TASKS)), weights=phase.shares)[0]
            yield self.encode(next(streams[task]), task)

    def _collate(self, rows: list[list[Document]]) -> Batch:
        tokens = torch.full((len(rows), ROW_LENGTH), self._pad)
        positions = torch.zeros_like(tokens)
        documents = torch.full_like(tokens, -1)
        wanted: list[int] = []
        targets: list[int] = []
        tasks: list[int] = []
        for r, row in enumerate(rows):
            at = 0
            for d, document in enumerate(row):
                n = len(document.tokens) - 1
                tokens[r, at : at + n] = torch.tensor(document.tokens[:-1])
                positions[r, at : at + n] = torch.arange(n)
                documents[r, at : at + n] = d
                learnt = range(document.answer_at, n + 1)
                wanted += [r * ROW_LENGTH + at + i - 1 for i in learnt]
                targets += [document.tokens[i] for i in learnt]
                tasks += [document.task] * len(learnt)
                at += n
        missing = -len(wanted) % _HEAD_ROWS
        return Batch(
            tokens,
            positions,
            documents,
            torch.tensor(wanted + [0] * missing),
            torch.tensor(targets + [0] * missing),
            torch.tensor(tasks + [-1] * missing),
        )


def _take_row(pool: list[Document]) -> list[Document]:
    """Take from `pool`, in order, whatever still fits into a row; the last token of a document is only a target."""
    row: list[Document] = []
    left = ROW_LENGTH
    for document in list(pool):
        if len(document.tokens) - 1 <= left:
            row.append(document)
            pool.remove(document)
            left -= len(document.tokens) - 1
    return row
