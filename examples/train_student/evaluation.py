"""Scores of an exported checkpoint, by unmodified transformers: exact match on held-out problems, perplexity on texts.

The checkpoint is judged as users get it (BF16 weights, its own tokenizer and chat template), not the model in training.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from sprat.demo.tasks import arithmetic, home
from sprat.demo.tasks.split import Problem, Split

__all__ = ["Score", "answers", "load", "perplexity", "score"]

_TASKS = {"arithmetic": arithmetic, "home": home}
_TEXTS_PER_BATCH = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Exact match over `n` problems, also per kind of problem; `valid`: share of answers that are valid JSON (home)."""

    n: int
    exact_match: float
    valid: float
    kinds: dict[str, tuple[int, int]]
    """Kind: (right, asked)."""
    misses: tuple[tuple[str, str, str], ...]
    """Some (prompt, what was said, what was expected)."""


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The checkpoint in float32: the same weights, without a second rounding."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


def score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str, split: Split, n: int, seed: int = 1
) -> Score:
    """Exact match of greedy answers to `n` problems of `split`."""
    room = _TASKS[task]
    problems = list(itertools.islice(room.problems(split, seed=seed), n))
    said = list(answers(model, tokenizer, problems))
    right = [room.is_correct(problem, answer) for problem, (_, answer) in zip(problems, said, strict=True)]
    kinds: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for problem, correct in zip(problems, right, strict=True):
        kinds[problem.kind] = (kinds[problem.kind][0] + correct, kinds[problem.kind][1] + 1)
    misses = [
        (problem.prompt, f"{thought} => {answer}", problem.answer)
        for problem, (thought, answer), correct in zip(problems, said, right, strict=True)
        if not correct
    ]
    valid = sum(home.is_valid(answer) for _, answer in said) / n if task == "home" else math.nan
    return Score(n=n, exact_match=sum(right) / n, valid=valid, kinds=dict(kinds), misses=tuple(misses[:20]))


def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: list[Problem]
) -> Iterator[tuple[str, str]]:
    """(reasoning, answer) to each problem, greedy."""
    for start in range(0, len(problems), _TEXTS_PER_BATCH):
        prompts = [_chat(tokenizer, problem.prompt) for problem in problems[start : start + _TEXTS_PER_BATCH]]
        inputs = tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=160, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        for row in output[:, inputs["input_ids"].shape[1] :]:
            text = tokenizer.decode(row, skip_special_tokens=True)
            thought, _, answer = text.rpartition("</think>")
            yield thought.strip(), answer.strip()


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[Problem]) -> tuple[float, int]:
    """Per token of the answers, given the questions; and the number of tokens."""
    total, count = 0.0, 0
    for text in texts:
        prompt = tokenizer(_chat(tokenizer, text.prompt) + "</think>\n\n", add_special_tokens=False).input_ids
        answer = [*tokenizer(text.answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        count += len(answer)
    return math.exp(total / count), count


def _chat(tokenizer: PreTrainedTokenizerBase, message: str) -> str:
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
        )
    )
