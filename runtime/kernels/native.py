"""The kernel contract in C++ (``runtime/native``), over weights in the format of the file.

Block formats are multiplied with int8 activations, 32 elements per scale; results differ from the reference by that
rounding: about 0.5 % of a product's typical magnitude. The rest is float32 and differs by the order of sums.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from sprat.arrays import F32Array, I32Array, U8Array
from sprat.errors import BackendError, unknown_name
from sprat.native import core, missing_because
from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.cache import FloatEntries, Int8Entries, KeysAndValues, KVCache, KVEntries, LatentCache
from sprat.runtime.kernels.bindings import Bindings
from sprat.runtime.kernels.contract import ChoiceObserver, MLAForm, Routes
from sprat.runtime.kernels.layers import MLP, GatedMLP, GroupedAttention, Head, LatentAttention, MoE
from sprat.runtime.weights import Weight

__all__ = ["NATIVE_FORMATS", "NativeKernels", "instruction_sets", "native_missing_because"]

NATIVE_FORMATS: frozenset[str] = frozenset(() if core is None else core.kernel_formats())
"""Formats of weights that the kernels multiply; none without the native core."""


def native_missing_because() -> str:
    """Why native kernels are not available; empty if they are."""
    return missing_because if core is None else ""


def instruction_sets() -> list[str]:
    """Instruction sets with kernels that this CPU supports, best first; the last is always ``plain``."""
    return [] if core is None else core.isa_names()


class NativeKernels:
    """:class:`~sprat.runtime.kernels.contract.Kernels` in C++. Weights must be of :data:`NATIVE_FORMATS`.

    Args:
        n_threads: number of threads, the caller's included; ``None`` for one per core.
        isa: an instruction set of :func:`instruction_sets`; ``None`` for ``$SPRAT_ISA``, by default the best.
        cores: cores to pin the threads to, except the first; empty for no pinning.
        exact: quantize activations to two int8 digits: the value, then the residual. Twice the arithmetic, and as exact
            as float32.

    Raises:
        BackendError: the native core is not built, or the CPU lacks the instruction set.
    """

    def __init__(
        self,
        n_threads: int | None = None,
        isa: str | None = None,
        cores: Sequence[int] = (),
        *,
        exact: bool = False,
    ) -> None:
        self._core = _loaded_core()
        name = isa or os.environ.get("SPRAT_ISA", "") or instruction_sets()[0]
        if name not in instruction_sets():
            raise BackendError(unknown_name("instruction set", name, instruction_sets()))
        n_digits = 2 if exact else 1
        self._set = self._core.KernelSet(name, n_threads or len(os.sched_getaffinity(0)), list(cores), n_digits)
        self._bound = Bindings(self._core)

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return str(self._set.isa)

    @property
    def n_threads(self) -> int:
        """Number of threads."""
        return int(self._set.n_threads)

    def read(self, packed: U8Array) -> None:
        """Read every byte with all threads and do nothing else: measures the memory bandwidth."""
        self._set.read(packed)

    def embed(self, table: Weight, tokens: I32Array) -> F32Array:
        """Dequantize the rows ``tokens``."""
        out = np.empty((len(tokens), table.shape[-1]), np.float32)
        self._set.embed(self._bound(table), tokens, out)
        return out

    def rms_norm(self, x: F32Array, gain: F32Array, eps: float) -> F32Array:
        """``x / sqrt(mean(x ** 2) + eps) * gain``."""
        out = np.empty(x.shape, np.float32)
        self._set.rms_norm(x, gain, eps, out)
        return out

    def linear(self, x: F32Array, weight: Weight, bias: F32Array | None = None) -> F32Array:
        """``x @ weight.T + bias``."""
        out = np.empty((len(x), weight.shape[0]), np.float32)
        self._set.linear(self._bound(weight), x, bias, out)
        return out

    def rope(self, x: F32Array, angles: RopeAngles) -> None:
        """Rotate each pair in place."""
        self._core.rope(x, angles.cos, angles.sin, angles.interleaved)

    def swiglu(self, x: F32Array, mlp: MLP) -> F32Array:
        """``down(silu(gate(x)) * up(x))``."""
        out = np.empty((len(x), mlp.down.shape[0]), np.float32)
        self._set.swiglu(self._bound(mlp), x, out)
        return out

    def route(self, logits: F32Array, moe: MoESpec, bias: F32Array | None = None) -> Routes:
        """Score experts, limit to the best groups, select the top k, compute their weights."""
        shape = (len(logits), moe.n_experts_per_token)
        routes = Routes(np.empty(shape, np.int32), np.empty(shape, np.float32))
        self._set.route(logits, bias, self._bound(moe), routes.experts, routes.weights)
        return routes

    def experts(self, x: F32Array, routes: Routes, routed: MLP, shared: MLP | None = None) -> F32Array:
        """Sort tokens by expert; each selected expert is read once."""
        out = np.empty(x.shape, np.float32)
        bound_shared = self._bound(shared) if shared else None
        self._set.experts(self._bound(routed), bound_shared, x, routes.experts, routes.weights, out)
        return out

    def gqa_attention(self, q: F32Array, entries: KeysAndValues, scale: float) -> F32Array:
        """FlashAttention; the query heads of a group share one pass over their keys."""
        out = np.empty(q.shape, np.float32)
        self._set.gqa(q, _stored(entries.keys), _stored(entries.values), scale, out)
        return out

    def mla_expanded(self, q: F32Array, entries: KVEntries, k_b: Weight, v_b: Weight, scale: float) -> F32Array:
        """Each head expands the latents block by block and attends with all queries."""
        return self._mla(q, entries, k_b, v_b, scale, expanded=True)

    def mla_absorbed(self, q: F32Array, entries: KVEntries, k_b: Weight, v_b: Weight, scale: float) -> F32Array:
        """All heads share one pass over the latents, split over threads by entries."""
        return self._mla(q, entries, k_b, v_b, scale, expanded=False)

    def latent_attention(
        self,
        x: F32Array,
        layer: LatentAttention,
        angles: RopeAngles,
        cache: LatentCache,
        index: int,
        form: MLAForm,
    ) -> None:
        """All steps in one call; the input of several projections is quantized once."""
        bound = self._bound(layer)
        latents = cache.plane(0)
        self._set.latent_attention(
            bound, x, self._bound.angles(angles), latents, index, cache.length, form == "expanded"
        )

    def grouped_attention(
        self, x: F32Array, layer: GroupedAttention, angles: RopeAngles, cache: KVCache, index: int
    ) -> None:
        """All steps in one call; the input of the projections is quantized once."""
        bound = self._bound(layer)
        keys, values = cache.plane(0), cache.plane(1)
        self._set.grouped_attention(bound, x, self._bound.angles(angles), keys, values, index, cache.length)

    def latent_attention_each(
        self,
        x: F32Array,
        layer: LatentAttention,
        angles: RopeAngles,
        caches: Sequence[LatentCache],
        index: int,
        form: MLAForm,
    ) -> None:
        """The products for all tokens together, attention sequence by sequence."""
        lengths, planes = [cache.length for cache in caches], [cache.plane(0) for cache in caches]
        bound = self._bound(layer)
        self._set.latent_attention_each(
            bound, x, self._bound.angles(angles), planes, index, lengths, form == "expanded"
        )

    def grouped_attention_each(
        self, x: F32Array, layer: GroupedAttention, angles: RopeAngles, caches: Sequence[KVCache], index: int
    ) -> None:
        """The products for all tokens together, attention sequence by sequence."""
        lengths = [cache.length for cache in caches]
        keys, values = ([cache.plane(plane) for cache in caches] for plane in (0, 1))
        bound = self._bound(layer)
        self._set.grouped_attention_each(bound, x, self._bound.angles(angles), keys, values, index, lengths)

    def gated_mlp(self, x: F32Array, layer: GatedMLP) -> None:
        """All steps in one call."""
        self._set.gated_mlp(self._bound(layer), x)

    def moe(self, x: F32Array, layer: MoE, observe: ChoiceObserver | None = None) -> None:
        """All steps in one call; with ``observe``, routing and experts in two."""
        bound = self._bound(layer)
        if observe is None:
            self._set.moe(bound, x)
            return
        shape = (len(x), layer.moe.n_experts_per_token)
        experts, weights = np.empty(shape, np.int32), np.empty(shape, np.float32)
        self._set.moe_route(bound, x, experts, weights)
        observe(experts)
        self._set.moe_forward_routed(bound, x, experts, weights)

    def logits(self, x: F32Array, head: Head) -> F32Array:
        """Norm and product in one call."""
        out = np.empty((len(x), head.output.shape[0]), np.float32)
        self._set.logits(self._bound(head), x, out)
        return out

    def _mla(
        self, q: F32Array, entries: KVEntries, k_b: Weight, v_b: Weight, scale: float, *, expanded: bool
    ) -> F32Array:
        out = np.empty((*q.shape[:2], v_b.shape[1]), np.float32)
        self._set.mla(q, _stored(entries), self._bound(k_b), self._bound(v_b), scale, expanded, out)
        return out


def _stored(entries: KVEntries) -> FloatEntries | U8Array:
    return entries.packed if isinstance(entries, Int8Entries) else entries


def _loaded_core() -> ModuleType:
    if why := native_missing_because():
        raise BackendError(f"the native kernels are missing: {why}")
    assert core is not None, "native_missing_because has a reason if there is no core"
    return core
