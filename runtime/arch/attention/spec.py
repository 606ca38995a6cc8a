"""What every kind of attention answers about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeAlias

from sprat.devices.plan.footprint import AttentionCost
from sprat.runtime.arch.fields import Fields
from sprat.runtime.arch.rope import RopeSpec, YarnScaling

__all__ = ["AttentionSpec", "CachePlane", "NamedShape", "Storage"]

Storage: TypeAlias = Literal["f32", "f16", "int8"]
"""The element type of a cache."""

NamedShape: TypeAlias = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class CachePlane:
    """One array that a layer caches: ``n_heads`` rows of ``width`` elements per token.

    Attributes:
        n_heads: rows per token.
        width: elements of a row.
        n_exact: how many of them, the last ones, stay in float16 in an int8 cache.
        group: elements that share a scale in an int8 cache.
    """

    n_heads: int
    width: int
    n_exact: int = 0
    group: int = 32


class AttentionSpec(ABC):
    """A kind of attention: its dimensions, and all that follows from them."""

    __slots__ = ()

    cache_kind: ClassVar[str]  # for people
    storages: ClassVar[tuple[Storage, ...]]
    """Element types that the native backend caches in: the default first, then those that take fewer bytes."""

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
        """What a layer caches of each token."""

    @property
    def cache_elements(self) -> int:
        """Elements that a layer caches per token."""
        return sum(plane.n_heads * plane.width for plane in self.planes)

    @abstractmethod
    def tensors(self, hidden_size: int) -> Iterator[NamedShape]:
        """Names (in a layer) and C-order shapes of the weights, in the order of the forward pass."""

    @abstractmethod
    def scale(self, rope: RopeSpec) -> float:
        """Factor on the scores before the softmax."""

    @abstractmethod
    def costs(self) -> tuple[AttentionCost, ...]:
        """The ways to compute one layer, of which a forward pass takes the cheapest."""

    def cheapest(self, n_new: int, n_past: int) -> AttentionCost:
        """The form with the fewest operations for ``n_new`` tokens at depth ``n_past``; the first of equals."""
        n_rows = n_past + n_new
        return min(self.costs(), key=lambda form: form.products(n_new, n_rows + form.setup_entries, n_new * n_rows))

    @abstractmethod
    def contradictions(self) -> list[str]:
        """Dimensions that do not fit together, as clauses of one message."""

    @abstractmethod
    def gguf_keys(self) -> dict[str, Any]:
        """llama.cpp's ``attention.*`` keys besides the head count, without the architecture's prefix."""

    @classmethod
    @abstractmethod
    def from_gguf(cls, fields: Fields, *, bias: bool) -> Self:
        """Read what :meth:`gguf_keys` wrote; problems are noted in ``fields``.

        Args:
            fields: the keys under the architecture's prefix.
            bias: whether the file has biases on queries, keys and values.
        """

    @abstractmethod
    def yarn_keys(self, yarn: YarnScaling) -> dict[str, Any]:
        """Keys that llama.cpp wants beside the scaling factor, with this kind of attention."""

    @abstractmethod
    def is_yarn_of_llamacpp(self, yarn: YarnScaling) -> bool:
        """Whether llama.cpp computes this ``mscale`` and ``mscale_all_dim``."""

    @abstractmethod
    def json_fields(self) -> Mapping[str, Any]:
        """The fields of the spec's JSON form; see :mod:`sprat.runtime.arch.spec_json`."""
