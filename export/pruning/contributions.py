"""Contribution of each routed expert to the hidden states of a text.

The contribution of an expert is the sum, over the tokens that are routed to it, of router weight times the norm of its
output (REAP, arXiv 2510.13999, which takes the mean: the sum also counts how often an expert is chosen).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.arrays import F32Array, F64Array, I32Array
from sprat.export.quality.measuring.layer_pass import DENSE_BYTES, LayerPass, Replaced
from sprat.export.source.checkpoint import Checkpoint
from sprat.progress import Progress, ReportProgress
from sprat.runtime.kernels import MLP, ReferenceKernels, Routes

__all__ = ["expert_contributions"]


def expert_contributions(
    checkpoint: Checkpoint, sequences: Sequence[I32Array], progress: ReportProgress
) -> dict[int, F64Array]:
    """MoE layer -> contribution of each expert, ``(n_routed_experts,)``.

    Args:
        checkpoint: the source with all experts; one layer is in memory at a time.
        sequences: token ids of the text.
        progress: called after each layer; unit: layers.
    """
    spec = checkpoint.spec
    assert spec.moe is not None, "checked_share() refuses others"
    layers = LayerPass(spec, checkpoint, sequences)
    x = layers.embed(ReferenceKernels(0))
    found: dict[int, F64Array] = {}
    for layer in range(spec.n_layers):
        progress(Progress(layer, spec.n_layers, f"experts of layer {layer + 1} of {spec.n_layers}"))
        kernels = _CountingKernels(spec.moe.n_routed_experts)
        layers.run(layers.block(layer, Replaced(checkpoint, {})), x, kernels)
        if spec.is_moe_layer(layer):
            found[layer] = kernels.contributions
    return found


class _CountingKernels(ReferenceKernels):
    """Kernels that sum what each expert of one layer adds."""

    def __init__(self, n_experts: int) -> None:
        super().__init__(DENSE_BYTES)
        self.contributions: F64Array = np.zeros(n_experts)

    def experts(self, x: F32Array, routes: Routes, routed: MLP, shared: MLP | None = None) -> F32Array:
        """One expert at a time, with all tokens that are routed to it."""
        out = self.swiglu(x, shared) if shared else np.zeros_like(x)
        for expert in map(int, np.unique(routes.experts)):
            tokens, places = np.nonzero(routes.experts == expert)
            added = self._mlp(x[tokens], routed, expert) * routes.weights[tokens, places, None]
            self.contributions[expert] += np.linalg.norm(added, axis=1).sum(dtype=np.float64)
            out[tokens] += added
        return out
