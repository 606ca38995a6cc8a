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
        head_moments: second moments of the head's inputs, ``(hidden, hidden)``; ``None`` for equal ones.
        effort: the steps of rounding.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightSource,
        sequences: Sequence[I32Array],
        head_moments: F32Array | None,
        effort: Effort,
    ) -> None:
        self._layers = LayerPass(spec, weights, sequences)
        self._head_moments = head_moments
        self._effort = effort
        self._x: F32Array | None = None
        self._layer = -1
        self._kernels, self._weights = ReferenceKernels(0), weights
        self._recorder = MomentsRecorder()

    def round(self, name: str, format: BlockFormat) -> U8Array:
        """The tensor ``name`` in ``format``, ``(..., row_bytes)``; layers must be asked for in order."""
        if name.startswith("blk."):
            moments = self._moments(int(name.split(".")[1])).get(name)
            assert moments is not None, f"{name}: no product has it"
            return round_weight(self._weights.weight(name), moments, format, self._effort, self._kernels).packed
        weight = self._layers.weights.weight(name)
        own = self._head_moments if name == self._layers.head().output.name else None
        if own is None:
            size = weight.shape[-1]
            own = np.eye(size, dtype=np.float32) if self._effort.feedback else np.ones(size, np.float32)
        return _round_rows(weight, own, format, self._effort)

    def _moments(self, layer: int) -> dict[str, MatrixMoments]:
        if self._x is None:
            self._x = self._layers.embed(ReferenceKernels(0))
        while self._layer < layer:
            self._layer += 1
            self._recorder = MomentsRecorder(diagonal=not self._effort.feedback)
            # What the pass dequantizes, the rounding reads again.
            self._kernels, self._weights = ReferenceKernels(DENSE_BYTES), Replaced(self._layers.weights, {})
            block = self._layers.block(self._layer, self._weights)
            self._layers.run(block, self._x, RecordingKernels(self._kernels, self._recorder))
        return self._recorder.moments


def round_weight(
    weight: Weight, moments: MatrixMoments, format: BlockFormat, effort: Effort, kernels: ReferenceKernels | None = None
) -> Weight:
    """``weight`` in ``format``, rounded for its inputs; of a stack, one part is dequantized at a time.

    Args:
        weight: a matrix or a stack.
        moments: of its inputs.
        format: the block format.
        effort: the steps of rounding.
        kernels: that ran the layer, and may have kept the weight dequantized.
    """
    dense = kernels.kept if kernels else _nothing
    common = moments.common() if effort.feedback else moments.common_squares()
    of_part = moments.of_part if effort.feedback else moments.squares_of_part
    if len(weight.shape) == 2:
        packed = _round_rows(weight, common, format, effort, dense(weight))
    else:
        rounded = (
            _round_rows(weight[part], of_part(part, common), format, effort, dense(weight, part))
            for part in range(weight.shape[0])
        )
        packed = np.stack(list(rounded))
    return Weight(weight.name, format, weight.shape, packed)


def _nothing(_weight: Weight, _index: int | None = None) -> None:
    """No-op callback: no dequantized copy is available."""


def _round_rows(
    matrix: Weight, moments: F32Array, format: BlockFormat, effort: Effort, dense: F32Array | None = None
) -> U8Array:
    """Packed rows ``(n_rows, row_bytes)``; without a ``dense`` copy, a panel of them is dequantized at a time."""
    rounder, step = MatrixRounder(moments, format, effort), max(1, _PANEL_BYTES // (4 * matrix.shape[-1]))
    if dense is not None:
        return rounder.round(dense)
    panels = (matrix.packed[start : start + step] for start in range(0, matrix.shape[0], step))
    return np.concatenate([rounder.round(matrix.format.dequantize(panel)) for panel in panels])
