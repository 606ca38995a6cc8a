"""Measure a model: what every format costs every tensor, and what its inputs are; one pass, one layer in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sprat.arrays import F32Array, I32Array
from sprat.export.quality.measuring.layer_pass import DENSE_BYTES, LayerPass, Replaced
from sprat.export.quality.measuring.measurements import Measurements
from sprat.export.quality.measuring.probes import Probes
from sprat.export.quality.measuring.statistics import MatrixMoments, MomentsRecorder
from sprat.export.quality.measuring.taps import RecordingKernels
from sprat.export.quality.measuring.unfinished import Unfinished
from sprat.export.quality.rounder import round_weight
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.quant.formats import BlockFormat
from sprat.quant.recipe import is_kept_f32
from sprat.quant.round.rounding import Effort, output_error, round_matrix
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.kernels import Head, ReferenceKernels
from sprat.runtime.models.block import Block
from sprat.runtime.weights import Weight, WeightSource

__all__ = ["PROBES", "SAMPLE_ROWS", "measure"]

PROBES = (("Q4_0",), ("Q2_K", "Q2_0"))
"""Formats that are probed: of each entry the first that a tensor's rows divide into."""
SAMPLE_ROWS = 128
"""Rows of a tensor whose errors are measured."""
_SAMPLE_PARTS = 8


def measure(
    spec: ModelSpec,
    weights: WeightSource,
    sequences: Sequence[I32Array],
    formats: Sequence[BlockFormat],
    *,
    n_probes: int,
    effort: Effort,
    progress: ReportProgress = no_progress,
    unfinished: Unfinished | None = None,
) -> Measurements:
    """Measure a model.

    Args:
        spec: the architecture.
        weights: the source's weights.
        sequences: token ids of the calibration text.
        formats: formats to measure.
        n_probes: sequences of the text that the probes read, the first ones.
        effort: how tensors are rounded, to measure a format's error and to probe it.
        progress: called after each layer; unit: layers.
        unfinished: where an interrupted measurement is kept, and continued from.
    """
    found = Measurements(sum(map(len, sequences)))
    layers, probed = (LayerPass(spec, weights, part) for part in (sequences, sequences[:n_probes]))
    probing = _Probing(probed, formats, effort)
    x = layers.embed(ReferenceKernels(0))
    first = unfinished.load(found, x, probing.probes, probing.formats) if unfinished else 0
    if first == 0:
        probing.start_embedding(weights.weight("token_embd.weight"))
    for layer in range(first, spec.n_layers):
        if unfinished and layer > first:
            unfinished.save_if_due(layer, found, x, probing.probes, probing.formats)
        progress(Progress(layer, spec.n_layers + 1, f"layer {layer + 1} of {spec.n_layers}"))
        source, kernels, recorder = Replaced(weights, {}), ReferenceKernels(DENSE_BYTES), MomentsRecorder()
        block, before = layers.block(layer, source), x[: probed.n_tokens].copy()
        probing.advance(block, kernels)
        layers.run(block, x, RecordingKernels(kernels, recorder))
        matrices = [source.weight(name) for name in recorder.moments if not is_kept_f32(name)]
        for weight in matrices:
            _add_matrix(found, weight, recorder.moments[weight.name], formats, effort)
        probing.start(layer, {weight: recorder.moments[weight.name] for weight in matrices}, source, before, kernels)
    progress(Progress(spec.n_layers, spec.n_layers + 1, "head"))
    head = layers.head()
    moments = _measure_head(found, head, x, formats, effort)
    if not spec.tied_embeddings:
        table = weights.weight("token_embd.weight")
        found.errors[table.name] = _errors(table, None, formats, effort)
    found.kld = probing.finish(x[: probed.n_tokens], head, moments)
    if unfinished:
        unfinished.remove()
    return found


class _Probing:
    """The probes of every entry of :data:`PROBES`."""

    def __init__(self, layers: LayerPass, formats: Sequence[BlockFormat], effort: Effort) -> None:
        self._effort = effort
        self._wanted = [[format for name in names for format in formats if format.name == name] for names in PROBES]
        self.probes = [Probes(layers) for _ in PROBES]
        self.formats: list[dict[str, str]] = [{} for _ in PROBES]  # of each tensor

    def start_embedding(self, table: Weight) -> None:
        moments = MatrixMoments(1, table.shape[-1])
        for number, probes in enumerate(self.probes):
            kernels = ReferenceKernels(0)
            for weight in self._rounded(number, {table: moments}, kernels).values():
                probes.start_embedding(weight, kernels)

    def advance(self, block: Block, kernels: ReferenceKernels) -> None:
        for probes in self.probes:
            probes.advance(block, kernels)

    def start(
        self,
        layer: int,
        matrices: Mapping[Weight, MatrixMoments],
        source: WeightSource,
        x: F32Array,
        kernels: ReferenceKernels,
    ) -> None:
        for number, probes in enumerate(self.probes):
            probes.start(layer, self._rounded(number, matrices, kernels), source, x, kernels)

    def finish(self, x: F32Array, head: Head, moments: MatrixMoments) -> dict[str, dict[str, float]]:
        """Tensor -> probed format -> divergence."""
        found: dict[str, dict[str, float]] = {}
        for number, probes in enumerate(self.probes):
            rounded = self._rounded(number, {head.output: moments}, ReferenceKernels(0))
            output = rounded.get(head.output.name)
            for name, kld in probes.finish(x, head, output).items():
                found.setdefault(name, {})[self.formats[number][name]] = kld
        return found

    def _rounded(
        self, number: int, matrices: Mapping[Weight, MatrixMoments], kernels: ReferenceKernels
    ) -> dict[str, Weight]:
        """The matrices in the format of one entry, without those whose rows divide into none of its formats."""
        rounded: dict[str, Weight] = {}
        for weight, moments in matrices.items():
            usable = (format for format in self._wanted[number] if format.divides(weight.shape[-1]))
            if format := next(usable, None):
                rounded[weight.name] = round_weight(weight, moments, format, self._effort, kernels)
                self.formats[number][weight.name] = format.name
        return rounded


def _add_matrix(
    found: Measurements, weight: Weight, moments: MatrixMoments, formats: Sequence[BlockFormat], effort: Effort
) -> None:
    found.errors[weight.name] = _errors(weight, moments, formats, effort)
    found.mean_squares[weight.name] = moments.mean_squares()
    if len(moments.n_tokens) > 1:
        found.expert_tokens[weight.name] = moments.n_tokens


def _measure_head(
    found: Measurements, head: Head, x: F32Array, formats: Sequence[BlockFormat], effort: Effort
) -> MatrixMoments:
    moments = MatrixMoments(1, len(head.norm))
    moments.add(ReferenceKernels(0).rms_norm(x, head.norm, head.eps), None, 0)
    found.head_moments = moments.common()
    _add_matrix(found, head.output, moments, formats, effort)
    return moments


def _errors(
    weight: Weight, moments: MatrixMoments | None, formats: Sequence[BlockFormat], effort: Effort
) -> dict[str, float]:
    """Format -> error of the outputs of a sample of rows, with the moments of the inputs or equal ones."""
    stack = weight if len(weight.shape) == 3 else None
    n_parts = weight.shape[0] if stack else 1
    parts = np.unique(np.linspace(0, n_parts - 1, _SAMPLE_PARTS).round().astype(int)) if stack else [0]
    common = moments.common() if moments else np.eye(weight.shape[-1], dtype=np.float32)
    usable = [format for format in formats if format.divides(weight.shape[-1])]
    errors = {format.name: 0.0 for format in usable}
    for part in map(int, parts):
        matrix = stack[part] if stack else weight
        own = moments.of_part(part, common) if moments else common
        rows = np.unique(np.linspace(0, matrix.shape[0] - 1, max(16, SAMPLE_ROWS // len(parts))).round().astype(int))
        sample = matrix.format.dequantize(matrix.packed[rows])
        share = moments.share(part) if moments and stack else 1.0
        for format in usable:
            packed = round_matrix(sample, own, format, effort)
            errors[format.name] += share * output_error(sample, packed, own, format)
    return errors
