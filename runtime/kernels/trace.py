"""Tracing: the time, bytes and operations of every kernel call.

::

    traced = TracedKernels(NativeKernels(2))
    model = Model(spec, weights, traced)
    ...
    for call in traced.calls: ...

Sublayers run step by step, so that every step is timed. Without tracing they are fused calls, which are faster than the
steps together in a small model.

A step is attributed to the layer whose weights it reads. Steps without weights (norm, RoPE, grouped attention, routing)
are attributed to the layer of the next step with weights.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from types import MethodType
from typing import Any, cast

import numpy as np

from sprat.runtime.arch.attention import AttentionSpec, GroupedAttentionSpec, LatentAttentionSpec
from sprat.runtime.cache import Int8Entries, KeysAndValues, KVEntries
from sprat.runtime.kernels import MLP, Kernels, Routes
from sprat.runtime.kernels.steps import StepByStep
from sprat.runtime.weights import Weight

__all__ = ["NO_LAYER", "KernelCall", "TracedKernels", "traced"]

NO_LAYER = -1  # embeddings and the head


@dataclasses.dataclass(frozen=True, slots=True)
class KernelCall:
    """One call: ``n_bytes`` of weights and cache read, ``n_ops`` operations of products (two per multiply-add)."""

    kernel: str  # "linear"
    what: str  # "attn_output"; empty if the step reads no weights
    layer: int
    seconds: float
    n_bytes: int
    n_ops: int


class TracedKernels:
    """A wrapper of kernels that records every call in :attr:`calls`.

    Methods are wrapped by name in ``__getattr__``: kernels that are added to the contract are timed, too.
    """

    def __init__(self, kernels: Kernels) -> None:
        self.calls: list[KernelCall] = []
        self._kernels = kernels
        self._pending: list[KernelCall] = []  # their layer is not known yet

    def __getattr__(self, name: str) -> Any:
        if hasattr(StepByStep, name):
            return MethodType(getattr(StepByStep, name), self)
        found = getattr(self._kernels, name)
        if callable(found) and hasattr(Kernels, name):
            found = self._timed(name, found)
            setattr(self, name, found)  # cached: a small model makes a call every few microseconds
        return found

    def _timed(self, name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = kernel(*arguments, **named)
            self._record(name, time.perf_counter() - start, (*arguments, *named.values()))
            return result

        return call

    def _record(self, name: str, seconds: float, arguments: tuple[Any, ...]) -> None:
        weights = list(_weights(arguments))
        n_bytes, n_ops = _cost(name, arguments)
        layer, what = _place(weights[0].name) if weights else (NO_LAYER, "")
        self._pending.append(KernelCall(name, what, layer, seconds, n_bytes, n_ops))
        if weights:
            self.calls += (dataclasses.replace(pending, layer=layer) for pending in self._pending)
            self._pending.clear()


def traced(kernels: TracedKernels) -> Kernels:
    """Cast for the type checker: the methods come from ``__getattr__``."""
    return cast("Kernels", kernels)


def _cost(name: str, arguments: tuple[Any, ...]) -> tuple[int, int]:
    """Bytes read and operations; activations are not counted, since they are in the CPU's caches."""
    if name == "embed":
        table, tokens = arguments[:2]
        return len(tokens) * table.nbytes // table.shape[0], 0
    if name == "experts":
        return _experts_cost(*arguments)
    if name.startswith("mla"):
        return _latent_cost(*arguments[:4], way=name.removeprefix("mla_"))
    if name == "gqa_attention":
        return _grouped_cost(*arguments[:2])
    n_tokens, weights = len(arguments[0]), list(_weights(arguments))
    return sum(weight.nbytes for weight in weights), 2 * n_tokens * sum(math.prod(weight.shape) for weight in weights)


def _experts_cost(x: Any, routes: Routes, routed: MLP, shared: MLP | None = None) -> tuple[int, int]:
    """Each selected expert is read once and runs for each of its tokens."""
    matrices = (routed.gate, routed.up, routed.down)
    n_selected = len(np.unique(routes.experts))
    n_bytes = sum(weight.nbytes // weight.shape[0] for weight in matrices) * n_selected
    n_ops = 2 * routes.experts.size * sum(math.prod(weight.shape[1:]) for weight in matrices)
    for weight in (shared.gate, shared.up, shared.down) if shared else ():
        n_bytes += weight.nbytes
        n_ops += 2 * len(x) * math.prod(weight.shape)
    return n_bytes, n_ops


def _latent_cost(q: Any, entries: Any, k_b: Weight, v_b: Weight, *, way: str) -> tuple[int, int]:
    """The weights of both up-projections, the cache, and the products of expanded or absorbed MLA."""
    n_tokens, n_heads, head_dim = q.shape
    attention = LatentAttentionSpec(
        n_heads=n_heads,
        q_lora_rank=None,
        kv_lora_rank=k_b.shape[1],
        qk_nope_head_dim=k_b.shape[2],
        qk_rope_head_dim=head_dim - k_b.shape[2],
        v_head_dim=v_b.shape[1],
    )
    n_bytes, n_ops = _attention_cost(attention, way, n_tokens, entries)
    return k_b.nbytes + v_b.nbytes + n_bytes, n_ops


def _grouped_cost(q: Any, entries: Any) -> tuple[int, int]:
    n_tokens, n_heads, head_dim = q.shape
    attention = GroupedAttentionSpec(n_heads=n_heads, n_kv_heads=n_heads, head_dim=head_dim)
    return _attention_cost(attention, "grouped", n_tokens, entries)


def _attention_cost(attention: AttentionSpec, name: str, n_tokens: int, entries: Any) -> tuple[int, int]:
    """Bytes of the cache, and the products of the cost called ``name`` over causal pairs."""
    n_bytes, n_entries = _entries_read(entries)
    cost = next(cost for cost in attention.costs() if cost.name == name)
    return n_bytes, cost.products(n_tokens, n_entries, _pairs(n_tokens, n_entries))


def _pairs(n_tokens: int, n_entries: int) -> int:
    """Pairs of a token and a KV entry that it attends to; the last ``n_tokens`` entries are the tokens' own."""
    return n_tokens * (n_entries - n_tokens) + n_tokens * (n_tokens + 1) // 2


def _entries_read(entries: KVEntries | KeysAndValues) -> tuple[int, int]:
    """Bytes and number of a layer's KV entries."""
    parts = (entries.keys, entries.values) if isinstance(entries, KeysAndValues) else (entries,)
    arrays = [part.packed if isinstance(part, Int8Entries) else part for part in parts]
    return sum(array.nbytes for array in arrays), arrays[0].shape[-2]


def _weights(arguments: Iterable[Any]) -> Iterator[Weight]:
    """All weights among a kernel's arguments."""
    for argument in arguments:
        if isinstance(argument, Weight):
            yield argument
        elif isinstance(argument, MLP):
            yield from (argument.gate, argument.up, argument.down)


def _place(name: str) -> tuple[int, str]:
    """Layer and role of a weight: ``blk.3.attn_q.weight`` is ``(3, "attn_q")``."""
    parts = name.removesuffix(".weight").split(".")
    return (int(parts[1]), parts[2]) if parts[0] == "blk" else (NO_LAYER, parts[0])
