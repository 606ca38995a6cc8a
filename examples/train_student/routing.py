"""Use of experts: number, balance, and how often the next token is routed to the same ones."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from vocabulary import completion

import sprat
from sprat.demo.tasks import Problem

__all__ = ["LayerRouting", "count_routing"]


@dataclass(frozen=True, slots=True)
class LayerRouting:
    """One MoE layer, over all tokens of some chats."""

    used: int
    """Experts that any token was routed to."""
    entropy: float
    """Entropy of the distribution of tokens over experts, divided by its maximum: 1 is uniform."""
    busiest: float
    """Share of tokens that were routed to the busiest expert."""
    reuse: float
    """Share of a token's experts that the previous token was routed to, too."""


def count_routing(engine: sprat.Engine, chats: Iterable[Problem], n_experts: int) -> list[LayerRouting]:
    """Routing of every MoE layer over `chats`, first layer first; only sprat's own backends can observe it."""
    selected: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for chat in chats:
        prompt = engine.encode_chat([{"role": "user", "content": chat.prompt}]).tokens
        answer = engine.tokenizer.encode(completion(chat.reasoning, chat.answer), add_bos=False, parse_special=True)
        stream = engine.backend.new_stream(
            len(prompt) + len(answer), lambda layer, experts: selected[layer].append(experts)
        )
        stream.forward([*prompt, *answer])
        stream.close()
    return [_count(layer, n_experts) for _, layer in sorted(selected.items())]


def _count(chats: list[np.ndarray], n_experts: int) -> LayerRouting:
    """Statistics of one layer; each array has the experts of one chat, (tokens, experts per token)."""
    counts = np.bincount(np.concatenate(chats).ravel(), minlength=n_experts)
    share = counts / counts.sum()
    used = share[share > 0]
    entropy = float(-(used * np.log(used)).sum() / np.log(n_experts))
    reuse = [np.isin(now, before).mean() for chat in chats for before, now in itertools.pairwise(chat)]
    n_tokens = sum(len(chat) for chat in chats)
    return LayerRouting(
        used=len(used), entropy=entropy, busiest=float(counts.max() / n_tokens), reuse=float(np.mean(reuse))
    )
