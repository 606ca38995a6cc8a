"""How the experts are used: are all alive, how evenly, and how often does the next token want the same ones?"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from vocabulary import completion

from sprat.demo.tasks.split import Problem
from sprat.runtime.chat.completions import Message
from sprat.runtime.engine import Engine

__all__ = ["LayerRouting", "count_routing"]


@dataclass(frozen=True, slots=True)
class LayerRouting:
    """One mixture layer, over all tokens of some texts."""

    used: int
    """Experts that were chosen at all."""
    entropy: float
    """Of the share of choices per expert, divided by its largest value: 1 is even."""
    busiest: float
    """Share of tokens that chose the busiest expert."""
    reuse: float
    """Share of a token's experts that the token before it had chosen too."""


def count_routing(engine: Engine, chats: Iterable[Problem], n_experts: int) -> list[LayerRouting]:
    """Routing of every mixture layer over `chats`, from below; sprat's own backends show it."""
    chosen: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for chat in chats:
        prompt = engine.encode_chat([Message(role="user", content=chat.prompt)]).tokens
        said = engine.tokenizer.encode(completion(chat.reasoning, chat.answer), add_bos=False, parse_special=True)
        stream = engine.backend.new_stream(
            len(prompt) + len(said), lambda layer, experts: chosen[layer].append(experts)
        )
        stream.extend([*prompt, *said])
        stream.close()
    return [_count(layer, n_experts) for _, layer in sorted(chosen.items())]


def _count(chats: list[np.ndarray], n_experts: int) -> LayerRouting:
    """Of one layer; each array holds a chat's choices, (tokens, experts per token)."""
    counts = np.bincount(np.concatenate(chats).ravel(), minlength=n_experts)
    share = counts / counts.sum()
    alive = share[share > 0]
    entropy = float(-(alive * np.log(alive)).sum() / np.log(n_experts))
    again = [np.isin(now, before).mean() for chat in chats for before, now in itertools.pairwise(chat)]
    n_tokens = sum(len(chat) for chat in chats)
    return LayerRouting(
        used=len(alive), entropy=entropy, busiest=float(counts.max() / n_tokens), reuse=float(np.mean(again))
    )
