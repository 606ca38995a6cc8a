"""Bytes that a model needs, and the cost of its forward passes, as plain values.

They are computed from a model in :mod:`sprat.runtime.memory.footprint`; ``devices`` does not know models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import msgspec

__all__ = ["AS_IT_IS", "SHORTEST_CONTEXT", "AttentionCost", "Footprint", "FormatShare", "LayerBytes", "PassCost"]

AS_IT_IS = "as it is"  # the quantization of a file that is planned for unchanged
SHORTEST_CONTEXT = 256  # a context that is shortened to fit is a multiple of this many tokens
_BLOCK = 64  # KV entries and queries that the kernels process together, masked or not


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCost:
    """Operations of one way to compute a layer's attention.

    For ``n`` new tokens and a cache of ``n_entries`` KV entries, the new ones included::

        n * per_token + (n_entries + setup_entries) * per_entry + n * (mean entries attended to per token) * per_pair

    Queries that share a KV entry are vectorized across lanes; a partly filled register costs a full one. With few
    queries per entry, at decode, the kernel vectorizes along head_dim instead, where every lane is used.

    Attributes:
        name: ``grouped``, ``expanded`` or ``absorbed``.
        per_token: per new token.
        per_entry: per KV entry.
        per_pair: per pair of new token and KV entry.
        queries_per_entry: queries of one token that share a KV entry.
        lanes_per_query: at decode the kernel vectorizes along head_dim if a register has at least this many lanes per
            query; 0 for never.
        setup_entries: KV entries whose expansion takes as long as dequantizing the matrices, once per call.
    """

    name: str
    per_token: int
    per_entry: int
    per_pair: int
    queries_per_entry: int
    lanes_per_query: int = 0
    setup_entries: int = 0

    def products(self, n_tokens: int, n_entries: int, n_pairs: int) -> int:
        """Operations for ``n_tokens`` new tokens, ``n_entries`` expanded KV entries and ``n_pairs`` of both."""
        return n_tokens * self.per_token + n_entries * self.per_entry + n_pairs * self.per_pair

    def ops(self, n_tokens: int, past: int, n_lanes: int = 1) -> float:
        """Operations for ``n_tokens`` new tokens at depth ``past``."""
        masked = min((n_tokens - 1) / 2, _BLOCK)  # scores that are computed with their block, then discarded
        attended = past + (n_tokens + 1) / 2 + masked
        n_queries = n_tokens * self.queries_per_entry
        along_head_dim = n_tokens == 1 and 0 < n_queries * self.lanes_per_query <= n_lanes
        filled = 1.0 if along_head_dim else n_queries / (math.ceil(n_queries / n_lanes) * n_lanes)
        expanded = past + n_tokens + self.setup_entries
        return n_tokens * self.per_token + expanded * self.per_entry + n_tokens * attended * self.per_pair / filled


class LayerBytes(msgspec.Struct, frozen=True):
    """Packed weights of one layer: what every token reads, and all its routed experts."""

    dense_bytes: int
    experts_bytes: int = 0


class FormatShare(msgspec.Struct, frozen=True):
    """Share of one block format in a part of a model, by bytes and by weights."""

    format: str
    bytes_share: float
    weights_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """Bytes read and operations of a forward pass. A product costs two operations per weight and token.

    Attributes:
        dense_bytes: packed matrices that every token uses: all except experts, embeddings and the output head.
        dense_weights: elements of these matrices.
        dense_rows: rows of these matrices, which is one output value each.
        head_bytes: packed output head, which runs for the last token of a pass only.
        head_weights: elements of the output head.
        head_rows: vocabulary size.
        expert_bytes: one packed expert.
        expert_weights: elements of one expert.
        expert_rows: rows of the three matrices of one expert.
        n_moe_layers: layers with an MoE sublayer.
        n_experts: routed experts of one such layer.
        n_experts_per_token: experts that the router selects per token and layer.
        f16_cache_bytes_per_token: KV entries of a token in float16, in all layers.
        layers: bytes of each layer; empty where they are not known.
        n_heads: attention heads of a layer; 0 where they are not known.
        n_layers: layers of the model.
        attention: ways to compute one layer's attention; the runtime takes the cheapest.
        attention_values: query values plus attention output values of a token, in all layers.
        cache_bytes_per_token: KV entries of a token, in all layers.
        n_calls: kernel calls of a pass.
        dense_formats: block formats of the matrices that every token uses; empty where they are not known.
        head_formats: of the output head.
        expert_formats: of the routed experts.
    """

    dense_bytes: int
    dense_weights: int
    dense_rows: int
    head_bytes: int
    head_weights: int
    head_rows: int
    n_layers: int
    attention: tuple[AttentionCost, ...]
    attention_values: int
    cache_bytes_per_token: int
    n_calls: int
    expert_bytes: int = 0
    expert_weights: int = 0
    expert_rows: int = 0
    n_moe_layers: int = 0
    n_experts: int = 0
    n_experts_per_token: int = 0
    f16_cache_bytes_per_token: int = 0
    layers: tuple[LayerBytes, ...] = ()
    n_heads: int = 0
    dense_formats: tuple[FormatShare, ...] = ()
    head_formats: tuple[FormatShare, ...] = ()
    expert_formats: tuple[FormatShare, ...] = ()

    @property
    def is_mla(self) -> bool:
        """Whether attention can be computed in more than one way: expanded or absorbed MLA."""
        return len(self.attention) > 1

    def experts_read(self, n_tokens: int) -> float:
        """Distinct experts that a pass over ``n_tokens`` uses, summed over layers, if routing is uniform."""
        if not self.n_experts:
            return 0.0
        unused = (1 - self.n_experts_per_token / self.n_experts) ** n_tokens
        return self.n_moe_layers * self.n_experts * (1 - unused)

    @property
    def matrix_bytes(self) -> int:
        """All packed matrices except the embeddings."""
        return self.dense_bytes + self.head_bytes + self.n_moe_layers * self.n_experts * self.expert_bytes

    @property
    def bytes_per_token(self) -> float:
        """Packed weights that decoding one token reads."""
        return self.dense_bytes + self.head_bytes + self.experts_read(1) * self.expert_bytes

    def attention_ops(self, n_tokens: int, past: int, n_lanes: int = 1) -> float:
        """Operations of attention, computed in the cheapest way.

        Args:
            n_tokens: new tokens of the pass.
            past: tokens in the cache before them.
            n_lanes: float32 lanes of a vector register.
        """
        return self.n_layers * min(cost.ops(n_tokens, past, n_lanes) for cost in self.attention)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory of one model in one quantization with one context length.

    Attributes:
        quant: name of the quantization, for example ``int4``.
        resident_bytes: weights that every token reads.
        routed_bytes: weights of routed experts, of which a token reads some.
        cache_bytes_per_token: KV entries of a token, in all layers.
        context: context length in tokens.
        buffer_bytes: activations of ``batch`` tokens, logits, tokenizer, and the program itself.
        pass_cost: cost of a forward pass; ``None`` if it is not known, and then no speed is predicted.
        cache: format of the KV cache.
        batch: tokens of one forward pass.
        activation_bytes: share of ``buffer_bytes`` per token of the batch.
    """

    quant: str
    resident_bytes: int
    routed_bytes: int
    cache_bytes_per_token: int
    context: int
    buffer_bytes: int
    pass_cost: PassCost | None = None
    cache: str = "f16"
    batch: int = 256
    activation_bytes: int = 0

    def of_batch(self, batch: int) -> Footprint:
        """The same model with another number of tokens of one forward pass."""
        if batch == self.batch:
            return self
        return replace(self, batch=batch, buffer_bytes=self.buffer_bytes + (batch - self.batch) * self.activation_bytes)

    @property
    def weight_bytes(self) -> int:
        """All weights."""
        return self.resident_bytes + self.routed_bytes

    @property
    def cache_bytes(self) -> int:
        """The KV cache of a full context."""
        return self.cache_bytes_per_token * self.context

    @property
    def total_bytes(self) -> int:
        """Weights, KV cache and buffers."""
        return self.weight_bytes + self.cache_bytes + self.buffer_bytes

    def context_within(self, cache_bytes: int) -> int:
        """Tokens whose KV entries fit into ``cache_bytes``, a multiple of 256; 0 if not even that many."""
        return max(0, cache_bytes) // max(self.cache_bytes_per_token, 1) // SHORTEST_CONTEXT * SHORTEST_CONTEXT

    @property
    def least_bytes(self) -> int:
        """Memory that it needs with experts streamed: everything else, and the experts of one token in one layer."""
        cost = self.pass_cost
        chosen = cost.n_experts_per_token * cost.expert_bytes if cost else self.routed_bytes
        return self.total_bytes - self.routed_bytes + min(chosen, self.routed_bytes)
