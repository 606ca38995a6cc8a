"""The kernel contract: the calls of a forward pass, and the steps that they consist of.

A model calls :meth:`Kernels.embed`, then for each layer one method for its attention and one for its MLP, then
:meth:`Kernels.logits`. ``steps.py`` defines these as sequences of steps; an implementation may fuse the steps.
The method of a sublayer adds to the hidden states in place: it includes the residual add.

Activations are C-contiguous float32 of shape ``(n, ...)``, ``n`` consecutive tokens; weights are
:class:`~sprat.runtime.weights.Weight`, packed as in their file. A step returns new arrays (only
:meth:`Kernels.rope` works in place). Kernels are stateless: no call changes the result of another.

``reference.py`` is the definition. Other implementations agree with it within the tolerances of their tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from sprat.arrays import F32Array, I32Array
from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.cache import KeysAndValues, KVCache, KVEntries, LatentCache
from sprat.runtime.kernels.layers import MLP, GatedMLP, GroupedAttention, Head, LatentAttention, MoE
from sprat.runtime.weights import Weight

__all__ = ["ChoiceObserver", "Kernels", "MLAForm", "Routes"]

MLAForm = Literal["expanded", "absorbed"]

ChoiceObserver = Callable[[I32Array], None]
"""Called with the expert ids ``(n, n_experts_per_token)`` of the routing, before any expert is read."""


class Routes(msgspec.Struct, frozen=True, eq=False):
    """The routing of each token: expert ids and weights, both ``(n, n_experts_per_token)``, best first."""

    experts: I32Array
    weights: F32Array


class Kernels(Protocol):
    """A kernel implementation. A protocol, not a base class: implementations share no arithmetic."""

    @property
    def in_numpy(self) -> bool:
        """Whether NumPy computes, which warns of NaN and Inf."""

    def embed(self, table: Weight, tokens: I32Array) -> F32Array:
        """Rows ``tokens`` of ``table``: ``(n, hidden)``."""

    def rms_norm(self, x: F32Array, gain: F32Array, eps: float) -> F32Array:
        """``x / sqrt(mean(x ** 2) + eps) * gain`` over the last axis (arXiv 1910.07467).

        ``x`` may be a slice of wider rows.
        """

    def linear(self, x: F32Array, weight: Weight, bias: F32Array | None = None) -> F32Array:
        """``x @ weight.T + bias``: ``(n, in)`` to ``(n, out)``."""

    def rope(self, x: F32Array, angles: RopeAngles) -> None:
        """Rotate ``x (n, heads, dim)`` in place; it may be a slice of wider heads (arXiv 2104.09864)."""

    def swiglu(self, x: F32Array, mlp: MLP) -> F32Array:
        """A dense gated MLP (arXiv 2002.05202): ``(n, hidden)`` to ``(n, hidden)``."""

    def route(self, logits: F32Array, moe: MoESpec, bias: F32Array | None = None) -> Routes:
        """The experts of each token and their weights, from router logits ``(n, n_routed_experts)``.

        ``bias`` is added to the scores for the top-k choice only, not to the weights (arXiv 2412.19437, eq. 16).
        """

    def experts(self, x: F32Array, routes: Routes, routed: MLP, shared: MLP | None = None) -> F32Array:
        """Weighted sum of the routed experts' MLPs, plus the shared MLP: ``(n, hidden)`` to ``(n, hidden)``.

        Each selected expert is read once, for all of its tokens.
        """

    def gqa_attention(self, q: F32Array, entries: KeysAndValues, scale: float) -> F32Array:
        """Causal attention of ``q (n, heads, dim)`` over KV entries, whose last ``n`` are the queries' own.

        Consecutive ``heads / kv_heads`` query heads share one key and value head (arXiv 2305.13245).
        Returns ``(n, heads, dim)``.
        """

    def mla_expanded(self, q: F32Array, entries: KVEntries, k_b: Weight, v_b: Weight, scale: float) -> F32Array:
        """Multi-head latent attention with keys and values expanded per head: cheaper at prefill.

        Args:
            q: ``(n, heads, qk_nope_head_dim + qk_rope_head_dim)``, the rope part rotated.
            entries: the latents ``(t, kv_lora_rank + qk_rope_head_dim)``; the last ``n`` are the queries' own.
            k_b: ``(heads, kv_lora_rank, qk_nope_head_dim)``.
            v_b: ``(heads, v_head_dim, kv_lora_rank)``.
            scale: factor on the scores.

        Returns:
            ``(n, heads, v_head_dim)`` (arXiv 2405.04434, eq. 9 to 19).
        """

    def mla_absorbed(self, q: F32Array, entries: KVEntries, k_b: Weight, v_b: Weight, scale: float) -> F32Array:
        """As :meth:`mla_expanded`, with ``k_b`` absorbed into the query; heads attend to latents: cheaper at decode."""

    def latent_attention(
        self,
        x: F32Array,
        layer: LatentAttention,
        angles: RopeAngles,
        cache: LatentCache,
        index: int,
        form: MLAForm,
    ) -> None:
        """``x += attention(norm(x))`` in place, ``x (n, hidden)``, over the tokens in ``cache`` and the new ones.

        The new tokens' latents are written to layer ``index`` of ``cache`` at ``cache.length``; the caller advances the
        cache once all layers are done.
        """

    def grouped_attention(
        self, x: F32Array, layer: GroupedAttention, angles: RopeAngles, cache: KVCache, index: int
    ) -> None:
        """The same for grouped-query attention."""

    def latent_attention_each(
        self,
        x: F32Array,
        layer: LatentAttention,
        angles: RopeAngles,
        caches: Sequence[LatentCache],
        index: int,
        form: MLAForm,
    ) -> None:
        """As :meth:`latent_attention`, for one token of each of several sequences: row ``i`` is of ``caches[i]``."""

    def grouped_attention_each(
        self, x: F32Array, layer: GroupedAttention, angles: RopeAngles, caches: Sequence[KVCache], index: int
    ) -> None:
        """The same for grouped-query attention."""

    def gated_mlp(self, x: F32Array, layer: GatedMLP) -> None:
        """``x += mlp(norm(x))`` in place, ``x (n, hidden)``."""

    def moe(self, x: F32Array, layer: MoE, observe: ChoiceObserver | None = None) -> None:
        """``x += experts(norm(x))`` in place; ``observe`` is called with the routing before any expert is read."""

    def logits(self, x: F32Array, head: Head) -> F32Array:
        """``output(norm(x))``: ``(n, hidden)`` to ``(n, vocabulary)``."""
