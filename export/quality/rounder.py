"""Round a model: a second pass over the calibration text, layer by layer, with the moments of each layer's inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.arrays import F32Array, I32Array, U8Array
from sprat.export.quality.measuring.layer_pass import DENSE_BYTES, LayerPass, Replaced
from sprat.export.quality.measuring.statistics import MatrixMoments, MomentsRecorder
from sprat.export.quality.measuring.taps import RecordingKernels
from sprat.quant.formats import BlockFormat
from sprat.quant.round.rounding import Effort, MatrixRounder
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.weights import Weight, WeightSource

__all__ = ["Rounder", "round_weight"]

_PANEL_BYTES = 64 << 20  # of dequantized rows: the embeddings of DeepSeek-V2-Lite take 839 MB


class Rounder:
    """Rounds the tensors of a model in the order of its layers.

    Args:
        spec: the architecture.
        weights: the source's weights.
        sequences: token ids of the calibration text.
        head_moments: second moments of the head's inputs, ``(hidden, hidden)``.
        effort: the steps of rounding.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightSource,
        sequences: Sequence[I32Array],
        head_moments: F32Array,
        effort: Effort,
    ) -> None:
        self._layers = LayerPass(spec, weights, sequences)
        self._head_moments = head_moments
        self._effort = effort
        self._x: F32Array | None = None
        self._layer = -1
        self._recorder = MomentsRecorder()

    def round(self, name: str, format: BlockFormat) -> U8Array:
        """The tensor ``name`` in ``format``, ``(..., row_bytes)``; layers must be asked for in order."""
        weight = self._layers.weights.weight(name)
        if name.startswith("blk."):
            moments = self._moments(int(name.split(".")[1])).get(name)
            assert moments is not None, f"{name}: no product has it"
            return round_weight(weight, moments, format, self._effort).packed
        is_head = name == self._layers.head().output.name
        own = self._head_moments if is_head else np.eye(weight.shape[-1], dtype=np.float32)
        return _round_rows(weight, own, format, self._effort)

    def _moments(self, layer: int) -> dict[str, MatrixMoments]:
        if self._x is None:
            self._x = self._layers.embed(ReferenceKernels(0))
        while self._layer < layer:
            self._layer += 1
            self._recorder = MomentsRecorder()
            block = self._layers.block(self._layer, Replaced(self._layers.weights, {}))
            self._layers.run(block, self._x, RecordingKernels(ReferenceKernels(DENSE_BYTES), self._recorder))
        return self._recorder.moments


def round_weight(weight: Weight, moments: MatrixMoments, format: BlockFormat, effort: Effort) -> Weight:
    """``weight`` in ``format``, rounded for its inputs; of a stack, one part is dequantized at a time."""
    common = moments.common() if effort.feedback else moments.common_squares()
    of_part = moments.of_part if effort.feedback else moments.squares_of_part
    if len(weight.shape) == 2:
        packed = _round_rows(weight, common, format, effort)
    else:
        parts = range(weight.shape[0])
        packed = np.stack([_round_rows(weight[part], of_part(part, common), format, effort) for part in parts])
    return Weight(weight.name, format, weight.shape, packed)


def _round_rows(matrix: Weight, moments: F32Array, format: BlockFormat, effort: Effort) -> U8Array:
    """Packed rows ``(n_rows, row_bytes)``; a panel of them is dequantized at a time."""
    rounder, step = MatrixRounder(moments, format, effort), max(1, _PANEL_BYTES // (4 * matrix.shape[-1]))
    panels = (matrix.packed[start : start + step] for start in range(0, matrix.shape[0], step))
    return np.concatenate([rounder.round(matrix.format.dequantize(panel)) for panel in panels])
