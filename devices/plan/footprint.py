"""What a model asks of a device: bytes, and the work of a pass. Computed elsewhere: this room knows no models."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["AttentionForm", "Footprint", "Work"]

_BLOCK = 64  # rows and queries that attention computes together, seen or not


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionForm:
    """Operations of one way to attend, over all layers.

    From ``n`` new tokens to a cache that holds ``rows`` with them::

        n * per_token + rows * per_row + n * (rows that a token sees on average) * per_pair

    Queries that share a row lie along the lanes of vector registers: fewer than there are lanes cost as much as those.
    Not so one token's few, each with ``lanes_to_query`` of them to itself: there rows are read along the lanes.
    """

    name: str  # "grouped", "expanded", "absorbed"
    per_token: int
    per_row: int
    per_pair: int
    queries_per_row: int  # of one token
    lanes_to_query: int = 0  # at least, for one token's queries to be few; 0 for never

    def ops(self, n_tokens: int, past: int, n_lanes: int = 1) -> float:
        """Operations for ``n_tokens`` behind ``past`` others."""
        unseen = min((n_tokens - 1) / 2, _BLOCK)  # computed with the others of a block, and thrown away
        seen = past + (n_tokens + 1) / 2 + unseen
        n_queries = n_tokens * self.queries_per_row
        along_rows = n_tokens == 1 and 0 < n_queries * self.lanes_to_query <= n_lanes
        filled = 1.0 if along_rows else n_queries / (math.ceil(n_queries / n_lanes) * n_lanes)
        return n_tokens * self.per_token + (past + n_tokens) * self.per_row + n_tokens * seen * self.per_pair / filled


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a forward pass reads and computes. A product costs two operations per weight and token.

    Attributes:
        dense_bytes: packed matrices that meet every token: all but experts, embedding rows and the head.
        dense_weights: their numbers.
        dense_rows: their rows; each is one number of a product.
        head_bytes: packed, of the last product, which only the last token of a pass needs.
        head_weights: its numbers.
        head_rows: the vocabulary.
        expert_bytes: packed, of one expert.
        expert_weights: numbers of one expert.
        expert_rows: rows of its three matrices.
        n_mixtures: layers with experts.
        n_experts: of one such layer.
        n_experts_per_token: chosen in one such layer.
        attention: ways to attend; the runtime takes the cheapest.
        attention_numbers: of a token's queries and of what it gets back, in all layers.
        cache_bytes_per_token: what the cache holds of a token.
        n_calls: kernel calls of a pass.
    """

    dense_bytes: int
    dense_weights: int
    dense_rows: int
    head_bytes: int
    head_weights: int
    head_rows: int
    attention: tuple[AttentionForm, ...]
    attention_numbers: int
    cache_bytes_per_token: int
    n_calls: int
    expert_bytes: int = 0
    expert_weights: int = 0
    expert_rows: int = 0
    n_mixtures: int = 0
    n_experts: int = 0
    n_experts_per_token: int = 0

    @property
    def is_latent(self) -> bool:
        """Whether attention has more than one form, as over latents."""
        return len(self.attention) > 1

    def experts_read(self, n_tokens: int) -> float:
        """Experts of all layers that ``n_tokens`` choose, each counted once, if all are equally likely."""
        if not self.n_experts:
            return 0.0
        missed = (1 - self.n_experts_per_token / self.n_experts) ** n_tokens
        return self.n_mixtures * self.n_experts * (1 - missed)

    @property
    def matrix_bytes(self) -> int:
        """All packed matrices but embedding rows."""
        return self.dense_bytes + self.head_bytes + self.n_mixtures * self.n_experts * self.expert_bytes

    @property
    def bytes_per_token(self) -> float:
        """Packed weights that one token reads."""
        return self.dense_bytes + self.head_bytes + self.experts_read(1) * self.expert_bytes

    def attention_ops(self, n_tokens: int, past: int, n_lanes: int = 1) -> float:
        """Operations of attention for ``n_tokens`` behind ``past`` others, in the cheapest form.

        Args:
            n_tokens: of the pass.
            past: tokens before them.
            n_lanes: numbers of a vector register.
        """
        return min(form.ops(n_tokens, past, n_lanes) for form in self.attention)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One model in one quantization, running with one context."""

    quant: str  # "int4"
    resident_bytes: int  # weights that every token reads
    routed_bytes: int  # weights of experts, of which a token reads some
    cache_bytes_per_token: int
    context: int  # tokens
    buffer_bytes: int  # activations, logits, tokenizer, the program itself
    work: Work | None = None  # of a pass; without it nothing is predicted
    cache: str = "f16"  # what a number of the cache is kept as

    @property
    def weight_bytes(self) -> int:
        """All weights."""
        return self.resident_bytes + self.routed_bytes

    @property
    def cache_bytes(self) -> int:
        """The cache of a full context."""
        return self.cache_bytes_per_token * self.context

    @property
    def total_bytes(self) -> int:
        """Everything."""
        return self.weight_bytes + self.cache_bytes + self.buffer_bytes

    @property
    def least_bytes(self) -> int:
        """What must be in memory when experts come from storage: all else, and the experts of one layer's choice."""
        chosen = self.work.n_experts_per_token * self.work.expert_bytes if self.work else self.routed_bytes
        return self.total_bytes - self.routed_bytes + min(chosen, self.routed_bytes)
