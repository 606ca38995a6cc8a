"""Measure a model: what every format costs every tensor, and what its inputs are; one pass, one layer in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sprat.arrays import F32Array, I32Array
from sprat.export.quality.layer_pass import LayerPass, Replaced
from sprat.export.quality.probes import Probes, rounded
from sprat.export.quality.statistics import MatrixMoments, MomentsRecorder
from sprat.export.quality.taps import RecordingKernels
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.quant.formats import BlockFormat, get_format
from sprat.quant.recipe import is_kept_f32
from sprat.quant.round.rounding import Effort, output_error, round_matrix
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.weights import Weight, WeightSource

__all__ = ["Measurements", "measure"]

_PROBE_FORMAT = "Q4_0"
_SAMPLE_ROWS = 128
_SAMPLE_PARTS = 8
# To second order the divergence is proportional to the error. Coarser formats also flip routes: the student's file at
# Q4_0's size, extrapolated in proportion, took Q2_0 for experts and lost more than it expected.
_STEEPNESS = 1.3


@dataclass(slots=True)
class Measurements:
    """What calibration found out about a model.

    Attributes:
        n_tokens: tokens of the calibration text.
        kld: tensor -> KL divergence of the model with this tensor alone in :attr:`probe_format`.
        errors: tensor -> format -> error of the outputs, in a unit of the tensor's own.
        mean_squares: tensor -> mean square of its inputs, ``(n_parts, k)``.
        expert_tokens: stacked tensor -> tokens that each expert saw.
        head_moments: second moments of the head's inputs, ``(hidden, hidden)``.
    """

    n_tokens: int
    kld: dict[str, float] = field(default_factory=dict)
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    mean_squares: dict[str, F32Array] = field(default_factory=dict)
    expert_tokens: dict[str, list[int]] = field(default_factory=dict)
    head_moments: F32Array | None = None
    probe_format: str = _PROBE_FORMAT

    def cost(self, tensor: str, format: str) -> float:
        """The KL divergence to expect of a tensor in a format: measured in one, scaled by the errors of both.

        Above the probe's error it grows faster than the error: see :data:`_STEEPNESS`.
        """
        errors = self.errors[tensor]
        relative = errors[format] / max(errors[self.probe_format], 1e-30)
        steep: float = relative**_STEEPNESS
        return self.kld[tensor] * max(relative, steep)


def measure(
    spec: ModelSpec,
    weights: WeightSource,
    sequences: Sequence[I32Array],
    formats: Sequence[BlockFormat],
    *,
    n_probes: int,
    effort: Effort,
    progress: ReportProgress = no_progress,
) -> Measurements:
    """Measure a model.

    Args:
        spec: the architecture.
        weights: the source's weights.
        sequences: token ids of the calibration text.
        formats: formats to measure.
        n_probes: sequences of the text that the probes read, the first ones.
        effort: how tensors are rounded to measure a format's error.
        progress: called after each layer; unit: layers.
    """
    found = Measurements(sum(map(len, sequences)))
    layers, probed = (LayerPass(spec, weights, part) for part in (sequences, sequences[:n_probes]))
    probes, kernels = Probes(probed), ReferenceKernels(0)
    table, format = weights.weight("token_embd.weight"), get_format(_PROBE_FORMAT)
    x = layers.embed(kernels)
    if format.divides(table.shape[-1]):
        probes.start_embedding(rounded(table, format), kernels)
    for layer in range(spec.n_layers):
        progress(Progress(layer, spec.n_layers + 1, f"layer {layer + 1} of {spec.n_layers}"))
        source, kernels, recorder = Replaced(weights, {}), ReferenceKernels(), MomentsRecorder()
        block, before = layers.block(layer, source), x[: probed.n_tokens].copy()
        probes.advance(block, kernels)
        layers.run(block, x, RecordingKernels(kernels, recorder))
        matrices = {name: source.weight(name) for name in recorder.moments if not is_kept_f32(name)}
        measured = {name: weight for name, weight in matrices.items() if format.divides(weight.shape[-1])}
        for name, weight in measured.items():
            _add_matrix(found, weight, recorder.moments[name], formats, effort)
        probes.start(
            layer, {name: rounded(weight, format) for name, weight in measured.items()}, source, before, kernels
        )
    progress(Progress(spec.n_layers, spec.n_layers + 1, "head"))
    _measure_head(found, layers, x, formats, effort)
    head = layers.head()
    if not spec.tied_embeddings:
        found.errors[table.name] = _errors(table, None, formats, effort)
    found.kld = probes.finish(x[: probed.n_tokens], head, rounded(head.output, format))
    return found


def _add_matrix(
    found: Measurements, weight: Weight, moments: MatrixMoments, formats: Sequence[BlockFormat], effort: Effort
) -> None:
    found.errors[weight.name] = _errors(weight, moments, formats, effort)
    found.mean_squares[weight.name] = moments.mean_squares()
    if len(moments.n_tokens) > 1:
        found.expert_tokens[weight.name] = moments.n_tokens


def _measure_head(
    found: Measurements, layers: LayerPass, x: F32Array, formats: Sequence[BlockFormat], effort: Effort
) -> None:
    head = layers.head()
    moments = MatrixMoments(1, len(head.norm))
    moments.add(ReferenceKernels(0).rms_norm(x, head.norm, head.eps), None, 0)
    found.head_moments = moments.common()
    _add_matrix(found, head.output, moments, formats, effort)


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
        rows = np.unique(np.linspace(0, matrix.shape[0] - 1, max(16, _SAMPLE_ROWS // len(parts))).round().astype(int))
        sample = matrix.format.dequantize(matrix.packed[rows])
        share = moments.share(part) if moments and stack else 1.0
        for format in usable:
            packed = round_matrix(sample, own, format, effort)
            errors[format.name] += share * output_error(sample, packed, own, format)
    return errors
