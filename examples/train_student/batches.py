"""Training batches: problems of the three tasks, packed into rows.

A batch depends only on its step number, so a resumed run gets the same batches as an uninterrupted one.
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

from sprat.demo.tasks import Problem, Split, arithmetic, home

__all__ = ["TASKS", "Batch", "BatchMaker", "Document"]

TASKS = ("arithmetic", "home", "prose")
ROWS, ROW_LENGTH = 16, 256
NO_TARGET = -100
"""The target of padding; `F.cross_entropy` ignores it."""
_POOL = 48
"""Documents that are considered for the next row."""


@dataclass(frozen=True, slots=True)
class Document:
    """One prompt and answer as tokens; the answer, reasoning included, begins at `answer_at`."""

    tokens: list[int]
    answer_at: int
    task: int


@dataclass(frozen=True, slots=True)
class Batch:
    """All (rows, n). `documents` is -1 in padding; `tasks` is the task where the target is part of an answer, else -1.

    The question's tokens are targets, too: to predict a story's next word, the model has to understand those before.
    """

    tokens: Tensor
    positions: Tensor
    documents: Tensor
    targets: Tensor
    tasks: Tensor


class BatchMaker:
    """Samples problems, encodes them and packs them into rows."""

    def __init__(self, tokenizer: Tokenizer, texts: list[Problem]) -> None:
        self.tokenizer = tokenizer
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
        """Encode one problem: the prompt as the chat template renders it, then the answer."""
        prompt = self.tokenizer.encode(chat_prompt(problem.prompt), add_special_tokens=False).ids
        answer = self.tokenizer.encode(completion(problem.reasoning, problem.answer), add_special_tokens=False).ids
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
        targets = torch.full_like(tokens, NO_TARGET)
        tasks = torch.full_like(tokens, -1)
        for r, row in enumerate(rows):
            at = 0
            for d, document in enumerate(row):
                n = len(document.tokens) - 1
                tokens[r, at : at + n] = torch.tensor(document.tokens[:-1])
                positions[r, at : at + n] = torch.arange(n)
                documents[r, at : at + n] = d
                targets[r, at : at + n] = torch.tensor(document.tokens[1:])
                tasks[r, at + document.answer_at - 1 : at + n] = document.task
                at += n
        return Batch(tokens, positions, documents, targets, tasks)


def _take_row(pool: list[Document]) -> list[Document]:
    """Take from `pool`, in order, every document that still fits into a row. Its last token is only a target."""
    row: list[Document] = []
    left = ROW_LENGTH
    for document in list(pool):
        if len(document.tokens) - 1 <= left:
            row.append(document)
            pool.remove(document)
            left -= len(document.tokens) - 1
    return row
