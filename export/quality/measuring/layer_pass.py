"""A model run one layer at a time over many sequences: hidden states in memory, weights of one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from sprat.arrays import F32Array, I32Array
from sprat.runtime.arch.rope import RopeTable
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.kernels import Head, Kernels, MLAForm
from sprat.runtime.models.attention import new_cache
from sprat.runtime.models.block import Block
from sprat.runtime.models.layer_weights import LayerWeights
from sprat.runtime.weights import Weight, WeightSource

__all__ = ["DENSE_BYTES", "LayerPass", "Replaced", "layer_prefix"]

DENSE_BYTES = 256 << 20
"""Dequantized weights of a layer that kernels keep; the others are dequantized for every call."""

_ACTIVATION_BYTES = 64 << 20  # of the widest activation of one MLP call


class LayerPass:
    """The parts of a forward pass over sequences ``(n,)`` of token ids.

    Hidden states of all sequences are one array ``(n_tokens, hidden)``, in order.

    Args:
        spec: the architecture.
        weights: the source's weights.
        sequences: token ids.
    """

    def __init__(self, spec: ModelSpec, weights: WeightSource, sequences: Sequence[I32Array]) -> None:
        self.spec = spec
        self.weights = weights
        self.sequences = sequences
        self._rope = RopeTable(spec.rope)
        self._ends = np.cumsum([len(sequence) for sequence in sequences]).tolist()

    @property
    def n_tokens(self) -> int:
        """Tokens of all sequences."""
        return int(self._ends[-1])

    def embed(self, kernels: Kernels, table: Weight | None = None) -> F32Array:
        """The hidden states before the first layer; ``table`` instead of the model's embeddings."""
        table = table or self.weights.weight("token_embd.weight")
        return kernels.embed(table, np.concatenate(self.sequences).astype(np.int32))

    def block(self, layer: int, weights: WeightSource | None = None) -> Block:
        """A layer, from ``weights`` instead of the model's own."""
        return Block(self.spec, LayerWeights(weights or self.weights, layer), layer)

    def run(self, block: Block, x: F32Array, kernels: Kernels) -> None:
        """Run a layer on hidden states ``(k * n_tokens, hidden)``, in place: ``k`` sets of all sequences."""
        self.attend(block, x, kernels)
        self.feed_forward(block, x, kernels)

    def attend(self, block: Block, x: F32Array, kernels: Kernels) -> None:
        """The layer's attention sublayer, as :meth:`run`."""
        cache = new_cache(self.spec, max(map(len, self.sequences)), "f32")
        for first in range(0, len(x), self.n_tokens):
            start = first
            for sequence in self.sequences:
                stop = start + len(sequence)
                form = cast("MLAForm", self.spec.attention.cheapest(len(sequence), 0).name)
                block.attend(x[start:stop], self._rope.angles(0, len(sequence)), cache, kernels, form)
                start = stop

    def feed_forward(self, block: Block, x: F32Array, kernels: Kernels) -> None:
        """The layer's MLP sublayer, as :meth:`run`."""
        step = max(1, _ACTIVATION_BYTES // (4 * max(self.spec.intermediate_size, self.spec.hidden_size)))
        for start in range(0, len(x), step):
            block.feed_forward(x[start : start + step], kernels)

    def head(self, weights: WeightSource | None = None) -> Head:
        """The final norm and the output matrix."""
        source = weights or self.weights
        output = "token_embd.weight" if self.spec.tied_embeddings else "output.weight"
        norm = source.weight("output_norm.weight").dequantize()
        return Head(norm=norm, output=source.weight(output), eps=self.spec.rms_norm_eps)


class Replaced:
    """A :class:`~sprat.runtime.weights.WeightSource` with some weights replaced.

    Weights are the same objects at every call, so that their dequantized copies are shared.
    """

    def __init__(self, weights: WeightSource, replaced: Mapping[str, Weight]) -> None:
        self._weights = weights
        self._replaced = replaced
        self._seen: dict[str, Weight] = {}

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The source's."""
        return self._weights.shapes

    def __contains__(self, name: object, /) -> bool:
        return name in self._weights

    def weight(self, name: str) -> Weight:
        """The replaced weight, or the source's."""
        if name in self._replaced:
            return self._replaced[name]
        if name not in self._seen:
            self._seen[name] = self._weights.weight(name)
        return self._seen[name]

    def check_unchanged(self) -> None:
        """Check the source."""
        self._weights.check_unchanged()


def layer_prefix(layer: int) -> str:
    """Prefix of the names of a layer's tensors."""
    return f"blk.{layer}."
