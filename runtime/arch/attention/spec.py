"""``AttentionSpec``: the base class of a kind of attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self, TypeAlias

import msgspec

from sprat.devices.plan.footprint import AttentionCost
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.rope import RopeSpec, YarnScaling

__all__ = ["AttentionSpec", "CachePlane", "NamedShape", "Storage"]

Storage: TypeAlias = Literal["f32", "f16", "int8"]
"""The element type of a KV cache."""

NamedShape: TypeAlias = tuple[str, tuple[int, ...]]


class CachePlane(msgspec.Struct, frozen=True):
    """One cached array of a layer: ``n_heads`` rows of ``width`` elements per token.

    Attributes:
        n_heads: rows per token.
        width: elements of a row.
        n_exact: last elements of a row, which stay in float16 in an int8 cache.
        group: elements that share a scale in an int8 cache.
    """

    n_heads: int
    width: int
    n_exact: int = 0
    group: int = 32


class AttentionSpec(ABC):
    """A kind of attention: its dimensions, tensors, cache layout, GGUF keys and cost."""

    __slots__ = ()

    cache_kind: ClassVar[str]  # name for display
    storages: ClassVar[tuple[Storage, ...]]
    """Storages of the native backend: the default first, then those of fewer bytes."""

    n_heads: int

    @property
    @abstractmethod
    def q_width(self) -> int:
        """Elements of all query heads of a token."""

    @property
    @abstractmethod
    def output_width(self) -> int:
        """Elements of all heads' outputs of a token."""

    @property
    @abstractmethod
    def planes(self) -> tuple[CachePlane, ...]:
        """The arrays that a layer caches of each token."""

    @property
    def cache_elements(self) -> int:
        """Elements of a KV entry: one token in one layer."""
        return sum(plane.n_heads * plane.width for plane in self.planes)

    @abstractmethod
    def tensors(self, hidden_size: int) -> Iterator[NamedShape]:
        """Names within a layer and C-order shapes of the weights, in the order of the forward pass."""

    @abstractmethod
    def scale(self, rope: RopeSpec) -> float:
        """Factor on the scores before the softmax."""

    @abstractmethod
    def costs(self) -> tuple[AttentionCost, ...]:
        """The ways to compute one layer; a forward pass takes the cheapest."""

    def cheapest(self, n_new: int, n_past: int) -> AttentionCost:
        """The way with the fewest operations for ``n_new`` tokens at depth ``n_past``; the first of equal ones."""
        n_entries = n_past + n_new
        return min(
            self.costs(), key=lambda cost: cost.products(n_new, n_entries + cost.setup_entries, n_new * n_entries)
        )

    @abstractmethod
    def contradictions(self) -> list[str]:
        """Dimensions that do not fit together, as clauses of one message."""

    @abstractmethod
    def gguf_keys(self) -> dict[str, Any]:
        """llama.cpp's ``attention.*`` keys besides the head count, without the architecture's prefix."""

    @classmethod
    @abstractmethod
    def from_gguf(cls, fields: Fields, *, bias: bool) -> Self:
        """Read the keys of :meth:`gguf_keys`; problems are recorded in ``fields``.

        Args:
            fields: the keys under the architecture's prefix.
            bias: whether the file has biases of queries, keys and values.
        """

    @abstractmethod
    def yarn_keys(self, yarn: YarnScaling) -> dict[str, Any]:
        """Keys that llama.cpp needs besides the scaling factor, with this kind of attention."""

    @abstractmethod
    def is_yarn_of_llamacpp(self, yarn: YarnScaling) -> bool:
        """Whether llama.cpp can represent this ``mscale`` and ``mscale_all_dim``."""

    is_linear_of_llamacpp: ClassVar[bool] = True
    """Whether llama.cpp changes nothing but the angles for a linear scaling."""

    @abstractmethod
    def json_fields(self) -> Mapping[str, Any]:
        """The fields of the spec's JSON form; see :mod:`sprat.runtime.arch.spec_json`."""
