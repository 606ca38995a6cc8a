"""Measured cost of rounding one tensor: the KL divergence of the model with it.

A probe is a set of hidden states that starts at a sublayer whose tensors are rounded, and runs through all later layers
beside the source's own. Layer by layer, one layer's weights serve all probes. A sublayer's divergence is divided over
its tensors by what each of them alone does to the sublayer's output, relative to the hidden states that it is added to.

The divergence is that of the source's ``256`` most likely tokens among themselves, so that a probe's logits are a
product with 256 rows of the head instead of the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sprat.arrays import F32Array, F64Array
from sprat.export.quality.measuring.layer_pass import LayerPass, Replaced
from sprat.runtime.kernels import Head, Kernels, ReferenceKernels
from sprat.runtime.models.block import Block
from sprat.runtime.weights import Weight, WeightSource

__all__ = ["Probes"]

_MOST_LIKELY = 256
_CHUNK = 64  # tokens whose logits are in memory at once
_TOGETHER = 4  # probes that run through a layer in one call

Sublayer = Callable[[Block, F32Array, Kernels], None]


class Probes:
    """All probes of a model.

    Args:
        layers: the source and the probes' sequences.
    """

    def __init__(self, layers: LayerPass) -> None:
        self._layers = layers
        self._states: dict[str, F32Array] = {}
        self._shares: dict[str, dict[str, float]] = {}  # probe -> tensor -> share of its divergence

    @property
    def states(self) -> dict[str, F32Array]:
        """Probe -> hidden states, ``(n, hidden)``."""
        return self._states

    @property
    def shares(self) -> dict[str, dict[str, float]]:
        """Probe -> tensor -> share of the probe's divergence."""
        return self._shares

    def start_embedding(self, table: Weight, kernels: Kernels) -> None:
        """Start the probe of the embeddings, before the first layer."""
        self._add(table.name, self._layers.embed(kernels, table), {table.name: 1.0})

    def advance(self, block: Block, kernels: Kernels) -> None:
        """Run every probe so far through a layer of the source, some at a time: they share dequantized weights."""
        own = list(self._states.values())
        for start in range(0, len(own), _TOGETHER):
            some = own[start : start + _TOGETHER]
            together = np.concatenate(some)
            self._layers.run(block, together, kernels)
            for state, after in zip(some, np.split(together, len(some)), strict=True):
                state[...] = after

    def start(
        self, layer: int, rounded: Mapping[str, Weight], source: WeightSource, x: F32Array, kernels: Kernels
    ) -> None:
        """Start the probes of one layer: one for its attention, one for its MLP.

        Args:
            layer: its index.
            rounded: its rounded tensors by name.
            source: the weights of the rest of the layer.
            x: the source's hidden states before the layer, ``(n, hidden)``.
            kernels: kernels that keep the layer's dequantized weights.
        """
        parts: list[dict[str, Weight]] = [{}, {}]
        for name, weight in rounded.items():
            parts[".ffn_" in name][name] = weight
        for number, (part, sublayer) in enumerate(
            zip(parts, (self._layers.attend, self._layers.feed_forward), strict=True)
        ):
            before, after = x, x.copy()
            sublayer(self._layers.block(layer, source), after, kernels)
            shares = {
                name: self._effect(layer, {name: weight}, source, sublayer, before, after, kernels)
                for name, weight in part.items()
            }
            if part:
                state = self._run(layer, part, source, sublayer, before, kernels)
                if number == 0:
                    self._layers.feed_forward(self._layers.block(layer, source), state, kernels)
                total = sum(shares.values())
                self._add(f"{layer}.{number}", state, {name: share / (total or 1) for name, share in shares.items()})
            x = after

    def finish(self, x: F32Array, head: Head, rounded_head: Weight | None) -> dict[str, float]:
        """Tensor -> mean KL divergence, for the tensors of all probes and the head.

        Args:
            x: the source's hidden states after the last layer.
            head: the source's head.
            rounded_head: the rounded output matrix; ``None`` without a probe of the head.
        """
        totals: F64Array = np.zeros(len(self._states) + 1)
        output = rounded_head or head.output
        for start in range(0, len(x), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            states = np.stack([x[chunk], *(state[chunk] for state in self._states.values())], axis=1)
            totals += _chunk_divergences(states, head, output)
        means = totals / len(x)
        found = {rounded_head.name: float(means[-1])} if rounded_head else {}
        for name, mean in zip(self._states, means[:-1].tolist(), strict=True):
            for tensor, share in self._shares[name].items():
                found[tensor] = found.get(tensor, 0.0) + share * mean
        return found

    def _add(self, name: str, state: F32Array, shares: dict[str, float]) -> None:
        self._states[name], self._shares[name] = state, shares

    def _run(
        self,
        layer: int,
        rounded: Mapping[str, Weight],
        source: WeightSource,
        sublayer: Sublayer,
        before: F32Array,
        kernels: Kernels,
    ) -> F32Array:
        state = before.copy()
        sublayer(self._layers.block(layer, Replaced(source, rounded)), state, kernels)
        return state

    def _effect(
        self,
        layer: int,
        rounded: Mapping[str, Weight],
        source: WeightSource,
        sublayer: Sublayer,
        before: F32Array,
        after: F32Array,
        kernels: Kernels,
    ) -> float:
        """Mean squared change of a sublayer's output, relative to the hidden states."""
        change = self._run(layer, rounded, source, sublayer, before, kernels) - after
        squares = np.einsum("ij,ij->i", change, change) / (np.einsum("ij,ij->i", after, after) + np.float32(1e-30))
        return float(squares.mean(dtype=np.float64))


def _chunk_divergences(states: F32Array, head: Head, rounded_head: Weight) -> F64Array:
    """Summed divergences of one chunk: of every state against the first, then of the rounded head.

    Args:
        states: ``(n, 1 + n_probes, hidden)``, the source's first.
        head: the source's head.
        rounded_head: the rounded output matrix.
    """
    kernels, n_likely = ReferenceKernels(0), min(_MOST_LIKELY, head.output.shape[0])
    base = kernels.logits(np.ascontiguousarray(states[:, 0]), head)
    likely = np.argpartition(base, -n_likely, axis=1)[:, -n_likely:]
    totals: F64Array = np.zeros(states.shape[1])
    for tokens, state in zip(likely, states, strict=True):
        normed = kernels.rms_norm(state, head.norm, head.eps)
        rows = head.output.format.dequantize(head.output.packed[tokens])
        logits = rows @ normed.T  # (n_likely, 1 + n_probes)
        probed = rounded_head.format.dequantize(rounded_head.packed[tokens]) @ normed[0]
        logs = _log_softmax(np.concatenate([logits, probed[:, None]], axis=1))
        totals += np.exp(logs[:, 0]) @ (logs[:, :1] - logs[:, 1:])
    return totals


def _log_softmax(logits: F32Array) -> F64Array:
    """The logarithm of the softmax over each column."""
    shifted = logits.astype(np.float64) - logits.max(axis=0)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=0)))
