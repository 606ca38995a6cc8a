"""Whether a file's router chooses the experts that the source's does: for ``benchmarks/quality.py``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sprat.arrays import F32Array, F64Array, I32Array
from sprat.export.quality.measuring.layer_pass import LayerPass
from sprat.quant.quality import routing_overlap
from sprat.runtime.arch.moe import MoESpec
from sprat.runtime.kernels import ReferenceKernels, Routes
from sprat.runtime.weights import WeightSource

__all__ = ["overlap_deficits"]


class _Routing(ReferenceKernels):
    """The reference, which keeps the experts of its last call."""

    chosen: I32Array | None = None

    def route(self, logits: F32Array, moe: MoESpec, bias: F32Array | None = None) -> Routes:
        """The experts of each token."""
        found = super().route(logits, moe, bias)
        self.chosen = found.experts if self.chosen is None else np.concatenate([self.chosen, found.experts])
        return found


def overlap_deficits(layers: LayerPass, candidates: Mapping[str, WeightSource]) -> dict[str, F64Array]:
    """Share of each token's experts that differ from the source's, mean over layers, ``(n_tokens,)``.

    Args:
        layers: the source and the sequences.
        candidates: name -> weights.
    """
    sources = {"": layers.weights, **candidates}
    embed = ReferenceKernels(0).embed
    tokens = np.concatenate(layers.sequences).astype(np.int32)
    states = {name: embed(source.weight("token_embd.weight"), tokens) for name, source in sources.items()}
    deficits: dict[str, list[F64Array]] = {name: [] for name in candidates}
    for layer in range(layers.spec.n_layers):
        chosen = {}
        for name, source in sources.items():
            kernels = _Routing()
            layers.run(layers.block(layer, source), states[name], kernels)
            chosen[name] = kernels.chosen
        for name in candidates:
            if (ours := chosen[name]) is not None and (source_s := chosen[""]) is not None:
                deficits[name].append(1 - np.asarray(routing_overlap(source_s, ours), np.float64))
    return {name: np.mean(found, axis=0) for name, found in deficits.items()}
