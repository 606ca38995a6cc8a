"""Kernels that show the inputs of every matrix: the reference, run step by step.

The inputs of ``k_b`` and ``v_b`` are those of absorbed MLA: a head's query without its rope part, and the latents
that a head's attention sums. An error of ``k_b`` changes the absorbed query, an error of ``v_b`` the head's output.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sprat.arrays import F32Array, I32Array
from sprat.quant.formats import get_format
from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.arch.rope import RopeAngles
from sprat.runtime.cache import KeysAndValues, KVEntries
from sprat.runtime.kernels import MLP, ReferenceKernels, Routes
from sprat.runtime.kernels.steps import StepByStep
from sprat.runtime.weights import Weight

__all__ = ["InputObserver", "RecordingKernels"]


class InputObserver(Protocol):
    """Called with the inputs of a matrix, before its product."""

    def __call__(self, weight: Weight, x: F32Array, weights: F32Array | None = None, index: int | None = None) -> None:
        """See ``x (n, k)``.

        Args:
            weight: the matrix, or the stack that it is part of.
            x: its inputs. Matrices that share their inputs get the same array.
            weights: importance of each input, ``(n,)``; ``None`` for equal ones.
            index: the expert, or the head, of a stack.
        """


class RecordingKernels(StepByStep):
    """:class:`~sprat.runtime.kernels.contract.Kernels` over the reference that call ``observe`` before each product."""

    def __init__(self, kernels: ReferenceKernels, observe: InputObserver) -> None:
        self._kernels = kernels
        self._observe = observe

    def embed(self, table: Weight, tokens: I32Array) -> F32Array:
        """Dequantize the rows ``tokens``."""
        return self._kernels.embed(table, tokens)

    def rms_norm(self, x: F32Array, gain: F32Array, eps: float) -> F32Array:
        """``x / sqrt(mean(x ** 2) + eps) * gain``."""
        return self._kernels.rms_norm(x, gain, eps)

    def linear(self, x: F32Array, weight: Weight, bias: F32Array | None = None) -> F32Array:
        """``x @ weight.T + bias``."""
        self._observe(weight, x)
        return self._kernels.linear(x, weight, bias)

    def rope(self, x: F32Array, angles: RopeAngles) -> None:
        """Rotate each pair in place."""
        self._kernels.rope(x, angles)

    def swiglu(self, x: F32Array, mlp: MLP) -> F32Array:
        """``down(silu(gate(x)) * up(x))``."""
        self._observe(mlp.gate, x)
        self._observe(mlp.up, x)
        hidden = _gated(self._kernels.linear(x, mlp.gate), self._kernels.linear(x, mlp.up))
        self._observe(mlp.down, hidden)
        return self._kernels.linear(hidden, mlp.down)

    def route(self, logits: F32Array, moe: MoESpec, bias: F32Array | None = None) -> Routes:
        """The experts of each token."""
        return self._kernels.route(logits, moe, bias)

    def experts(self, x: F32Array, routes: Routes, routed: MLP, shared: MLP | None = None) -> F32Array:
        """One expert at a time; its inputs are weighted by the squared router weight, as its output's error is."""
        out = self.swiglu(x, shared) if shared else np.zeros_like(x)
        for expert in map(int, np.unique(routes.experts)):
            tokens, places = np.nonzero(routes.experts == expert)
            inputs, gains = x[tokens], routes.weights[tokens, places]
            squared = gains * gains
            self._observe(routed.gate, inputs, squared, expert)
            self._observe(routed.up, inputs, squared, expert)
            gate, up = (self._kernels.expert(inputs, weight, expert) for weight in (routed.gate, routed.up))
            hidden = _gated(gate, up)
            self._observe(routed.down, hidden, squared, expert)
            out[tokens] += self._kernels.expert(hidden, routed.down, expert) * gains[:, None]
        return out

    def gqa_attention(self, q: F32Array, entries: KeysAndValues, scale: float) -> F32Array:
        """Causal attention."""
        return self._kernels.gqa_attention(q, entries, scale)

    def mla_expanded(self, q: F32Array, entries: KVEntries, k_b: Weight, v_b: Weight, scale: float) -> F32Array:
        """The same result as :meth:`mla_absorbed`."""
        return self.mla_absorbed(q, entries, k_b, v_b, scale)

    def mla_absorbed(self, q: F32Array, entries: KVEntries, k_b: Weight, v_b: Weight, scale: float) -> F32Array:
        """Attention sums the latents themselves; ``v_b`` is applied to the sums."""
        n_heads, rank, nope = k_b.shape
        latents = self._kernels.mla_absorbed(q, entries, k_b, _identities(n_heads, rank), scale)
        for head in range(n_heads):
            self._observe(k_b, np.ascontiguousarray(q[:, head, :nope]), None, head)
            self._observe(v_b, np.ascontiguousarray(latents[:, head]), None, head)
        return np.ascontiguousarray((latents.swapaxes(0, 1) @ v_b.dequantize().swapaxes(1, 2)).swapaxes(0, 1))


def _gated(gate: F32Array, up: F32Array) -> F32Array:
    with np.errstate(over="ignore"):  # exp(-x) of a very negative x is Inf, and x / Inf is 0, as it should be
        return np.asarray(gate / (1 + np.exp(-gate)) * up)


def _identities(n_heads: int, rank: int) -> Weight:
    stack = np.ascontiguousarray(np.broadcast_to(np.eye(rank, dtype=np.float32), (n_heads, rank, rank)))
    return Weight("identity", get_format("F32"), stack.shape, stack.view(np.uint8))
