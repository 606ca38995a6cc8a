"""Grouped-query attention (arXiv 2305.13245): groups of query heads share a key and a value head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from sprat.devices.plan.footprint import AttentionCost
from sprat.runtime.arch.attention.spec import AttentionSpec, CachePlane, NamedShape, Storage
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.rope import RopeSpec, YarnScaling

__all__ = ["GroupedAttentionSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedAttentionSpec(AttentionSpec):
    """Keys and values per group of query heads; with one group, multi-query, with ``n_heads``, multi-head attention.

    Attributes:
        n_heads: query heads.
        n_kv_heads: KV heads.
        head_dim: elements of a query, a key or a value of one head.
        bias: whether queries, keys and values have biases (Qwen2).
        qk_norm: whether each head of queries and keys is normed before RoPE (Qwen3).
    """

    cache_kind: ClassVar[str] = "keys and values"
    storages: ClassVar[tuple[Storage, ...]] = ("f16", "int8")

    n_heads: int
    n_kv_heads: int
    head_dim: int
    bias: bool = False
    qk_norm: bool = False

    @property
    def q_width(self) -> int:
        """Elements of all query heads of a token."""
        return self.n_heads * self.head_dim

    @property
    def output_width(self) -> int:
        """Elements of all heads' outputs of a token."""
        return self.q_width

    @property
    def planes(self) -> tuple[CachePlane, ...]:
        """Keys, then values."""
        plane = CachePlane(self.n_kv_heads, self.head_dim)
        return plane, plane

    def tensors(self, hidden_size: int) -> Iterator[NamedShape]:
        """Projections of queries, keys, values and the output; the norms of the heads."""
        kv_width = self.n_kv_heads * self.head_dim
        for name, width in (("attn_q", self.q_width), ("attn_k", kv_width), ("attn_v", kv_width)):
            yield f"{name}.weight", (width, hidden_size)
            if self.bias:
                yield f"{name}.bias", (width,)
        if self.qk_norm:
            yield "attn_q_norm.weight", (self.head_dim,)
            yield "attn_k_norm.weight", (self.head_dim,)
        yield "attn_output.weight", (hidden_size, self.q_width)

    def scale(self, rope: RopeSpec) -> float:
        """``head_dim ** -0.5``."""
        return float(self.head_dim**-0.5)

    def costs(self) -> tuple[AttentionCost, ...]:
        """QK and PV: two products over ``head_dim`` per query head and KV entry."""
        return (
            AttentionCost(
                name="grouped",
                per_token=0,
                per_entry=0,
                per_pair=2 * 2 * self.head_dim * self.n_heads,
                queries_per_entry=self.n_heads // self.n_kv_heads,
                lanes_per_query=2,
            ),
        )

    def contradictions(self) -> list[str]:
        """The number of query heads is not a multiple of the number of KV heads."""
        if self.n_kv_heads < 1 or self.n_heads < 1 or self.n_heads % self.n_kv_heads:
            return [f"{self.n_heads} query heads over {self.n_kv_heads} KV heads"]
        return []

    def gguf_keys(self) -> dict[str, Any]:
        """Number and width of the KV heads."""
        return {
            "attention.head_count_kv": self.n_kv_heads,
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
        }

    @classmethod
    def from_gguf(cls, fields: Fields, *, bias: bool, qk_norm: bool = False) -> Self:
        """Read the keys of :meth:`gguf_keys`; by default ``key_length`` is ``embedding_length / head_count``."""
        n_heads = fields.size("attention.head_count")
        head_dim = fields.size("attention.key_length", fields.size("embedding_length") // n_heads)
        fields.must_be({"attention.value_length": [head_dim]})
        n_kv_heads = fields.size("attention.head_count_kv", n_heads)
        return cls(n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim, bias=bias, qk_norm=qk_norm)

    def yarn_keys(self, yarn: YarnScaling) -> dict[str, Any]:
        """None."""
        return {}

    def is_yarn_of_llamacpp(self, yarn: YarnScaling) -> bool:
        """The paper's."""
        return (yarn.mscale, yarn.mscale_all_dim) == (1.0, 0.0)

    def json_fields(self) -> Mapping[str, Any]:
        """The dimensions; ``qk_norm`` where it is set."""
        return {
            "n_heads": self.n_heads,
            "n_kv_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "attention_bias": self.bias,
            **({"qk_norm": True} if self.qk_norm else {}),
            "mla": None,
        }
