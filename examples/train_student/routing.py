"""How the experts are used: are all alive, how evenly, and how often does the next token want the same ones?"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sprat.demo.tasks.split import Problem

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


def count_routing(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[Problem]
) -> list[LayerRouting]:
    """Routing of every mixture layer over the chats in `texts`."""
    chosen: list[list[np.ndarray]] = [
        [] for _ in range(model.config.num_hidden_layers - model.config.first_k_dense_replace)
    ]
    for text in texts:
        chat = [{"role": "user", "content": text.prompt}]
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        thought = f"{text.reasoning}\n" if text.reasoning else ""
        ids = tokenizer(
            f"{prompt}{thought}</think>\n\n{text.answer}", add_special_tokens=False, return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            logits = model(ids, output_router_logits=True).router_logits
        for layer, scores in zip(chosen, logits, strict=True):
            layer.append(scores.topk(model.config.num_experts_per_tok).indices.numpy())
    return [_count(layer, model.config.n_routed_experts) for layer in chosen]


def _count(chats: list[np.ndarray], n_experts: int) -> LayerRouting:
    counts = np.bincount(np.concatenate(chats).ravel(), minlength=n_experts)
    share = counts / counts.sum()
    alive = share[share > 0]
    entropy = float(-(alive * np.log(alive)).sum() / np.log(n_experts))
    again = [np.isin(now, before).mean() for chat in chats for before, now in itertools.pairwise(chat)]
    n_tokens = sum(len(chat) for chat in chats)
    return LayerRouting(
        used=len(alive), entropy=entropy, busiest=float(counts.max() / n_tokens), reuse=float(np.mean(again))
    )
