"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): the cache holds one latent per token for all heads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from sprat.devices.plan.footprint import AttentionCost
from sprat.runtime.arch.attention.spec import AttentionSpec, CachePlane, NamedShape, Storage
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.rope import RopeSpec, YarnScaling, yarn_magnitude

__all__ = ["LatentAttentionSpec"]

_GGUF_LOG_MULTIPLIER = 0.1  # yarn_log_multiplier is this times mscale_all_dim; only with latent attention
_NORM_EPS_KEY = "attention.latent_norm_rms_epsilon"  # sprat's own: llama.cpp has one epsilon for all norms
_SETUP_ENTRIES = 105  # dequantizing k_b and v_b takes as long as expanding this many entries: measured, V2-Lite, Q4_0


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttentionSpec(AttentionSpec):
    """A KV entry is the normalized latent, then the rotated part of the key that all heads share.

    Attributes:
        n_heads: query heads.
        q_lora_rank: width of the compressed query; ``None`` if queries are not compressed.
        kv_lora_rank: width of the latent.
        qk_nope_head_dim: elements of a query or key without RoPE.
        qk_rope_head_dim: elements with RoPE.
        v_head_dim: elements of a value.
        norm_eps: epsilon of the norms of the latent and of the compressed query; ``None`` for the model's.
    """

    cache_kind: ClassVar[str] = "latent"
    # Int8 latents lose less accuracy than int8 activations in the products do, and attention over them is faster.
    storages: ClassVar[tuple[Storage, ...]] = ("int8",)

    n_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    norm_eps: float | None = None

    @property
    def qk_head_dim(self) -> int:
        """Elements of a query or an expanded key of one head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """Elements of a KV entry."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def q_width(self) -> int:
        """Elements of all query heads of a token."""
        return self.n_heads * self.qk_head_dim

    @property
    def output_width(self) -> int:
        """Elements of all heads' outputs of a token."""
        return self.n_heads * self.v_head_dim

    @property
    def planes(self) -> tuple[CachePlane, ...]:
        """One latent per token; its RoPE part stays in float16, since every head's scores depend on it."""
        group = 32 if self.kv_lora_rank % 128 else 128
        return (CachePlane(1, self.latent_dim, n_exact=self.qk_rope_head_dim, group=group),)

    def tensors(self, hidden_size: int) -> Iterator[NamedShape]:
        """Projections of the query, compressed or not, the latent, its up-projections per head, and the output."""
        if self.q_lora_rank is None:
            yield "attn_q.weight", (self.q_width, hidden_size)
        else:
            yield "attn_q_a.weight", (self.q_lora_rank, hidden_size)
            yield "attn_q_a_norm.weight", (self.q_lora_rank,)
            yield "attn_q_b.weight", (self.q_width, self.q_lora_rank)
        yield "attn_kv_a_mqa.weight", (self.latent_dim, hidden_size)
        yield "attn_kv_a_norm.weight", (self.kv_lora_rank,)
        yield "attn_k_b.weight", (self.n_heads, self.kv_lora_rank, self.qk_nope_head_dim)
        yield "attn_v_b.weight", (self.n_heads, self.v_head_dim, self.kv_lora_rank)
        yield "attn_output.weight", (hidden_size, self.output_width)

    def scale(self, rope: RopeSpec) -> float:
        """``qk_head_dim ** -0.5``, with YaRN times ``m(factor, mscale_all_dim) ** 2``."""
        yarn = rope.scaling
        magnitude = yarn_magnitude(yarn.factor, yarn.mscale_all_dim) if isinstance(yarn, YarnScaling) else 1.0
        return magnitude**2 / math.sqrt(self.qk_head_dim)

    def costs(self) -> tuple[AttentionCost, ...]:
        """Absorbed and expanded MLA.

        Absorbed: one up-projection per query, QK and PV over the latent. Expanded: one up-projection per KV entry,
        narrower QK and PV per head.
        """
        heads = 2 * self.n_heads
        projection = heads * self.kv_lora_rank * (self.qk_nope_head_dim + self.v_head_dim)
        return (
            AttentionCost(
                name="absorbed",
                per_token=projection,
                per_entry=0,
                per_pair=heads * (self.latent_dim + self.kv_lora_rank),
                queries_per_entry=self.n_heads,
                lanes_per_query=4,
            ),
            AttentionCost(
                name="expanded",
                per_token=0,
                per_entry=projection,
                per_pair=heads * (self.qk_head_dim + self.v_head_dim),
                queries_per_entry=1,
                setup_entries=_SETUP_ENTRIES,
            ),
        )

    def contradictions(self) -> list[str]:
        """None: any number of heads can share the latent."""
        return []

    def gguf_keys(self) -> dict[str, Any]:
        """Keys of absorbed MLA: one KV head, whose key is the whole KV entry and whose value is the latent in it."""
        return {
            "attention.head_count_kv": 1,
            "attention.q_lora_rank": self.q_lora_rank or 0,  # required except with V2-Lite's 27 layers
            "attention.kv_lora_rank": self.kv_lora_rank,
            "attention.key_length": self.latent_dim,
            "attention.value_length": self.kv_lora_rank,
            "attention.key_length_mla": self.qk_head_dim,
            "attention.value_length_mla": self.v_head_dim,
            **({_NORM_EPS_KEY: self.norm_eps} if self.norm_eps else {}),
        }

    @classmethod
    def from_gguf(cls, fields: Fields, *, bias: bool) -> Self:
        """Read the keys of :meth:`gguf_keys`, or those of files from before llama.cpp supported MLA.

        The old keys give the sizes of the expanded heads, and as many KV heads as query heads. In such files
        ``attn_kv_b`` is not split (:mod:`sprat.runtime.files.latent_tensors`).
        """
        n_heads = fields.size("attention.head_count")
        rank, rope = fields.size("attention.kv_lora_rank"), fields.size("rope.dimension_count")
        is_split = "attention.key_length_mla" in fields
        suffix = "_mla" if is_split else ""
        key = fields.size(f"attention.key_length{suffix}", least=rope + 1)
        value = fields.size(f"attention.value_length{suffix}")
        if is_split:
            fields.must_be({"attention.key_length": [rank + rope], "attention.value_length": [rank]})
        fields.must_be({"attention.head_count_kv": [1 if is_split else n_heads]})
        return cls(
            n_heads=n_heads,
            q_lora_rank=fields.size("attention.q_lora_rank", 0, least=0) or None,
            kv_lora_rank=rank,
            qk_nope_head_dim=max(key - rope, 1),
            qk_rope_head_dim=rope,
            v_head_dim=value,
            norm_eps=fields.float32(_NORM_EPS_KEY) if _NORM_EPS_KEY in fields else None,
        )

    def yarn_keys(self, yarn: YarnScaling) -> dict[str, Any]:
        """``mscale_all_dim``, as llama.cpp stores it for MLA."""
        return {"rope.scaling.yarn_log_multiplier": _GGUF_LOG_MULTIPLIER * yarn.mscale_all_dim}

    is_linear_of_llamacpp = False  # it scales the scores for any factor, as for YaRN

    def is_yarn_of_llamacpp(self, yarn: YarnScaling) -> bool:
        """llama.cpp uses one value for both."""
        return yarn.mscale == yarn.mscale_all_dim > 0

    def json_fields(self) -> Mapping[str, Any]:
        """The dimensions; the fields of grouped attention are those of expanded heads."""
        return {
            "n_heads": self.n_heads,
            "n_kv_heads": self.n_heads,
            "head_dim": self.qk_head_dim,
            "attention_bias": False,
            "mla": {
                "q_lora_rank": self.q_lora_rank,
                "kv_lora_rank": self.kv_lora_rank,
                "qk_nope_head_dim": self.qk_nope_head_dim,
                "qk_rope_head_dim": self.qk_rope_head_dim,
                "v_head_dim": self.v_head_dim,
                **({"norm_eps": self.norm_eps} if self.norm_eps else {}),
            },
        }
