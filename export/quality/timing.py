"""How long a calibrated export takes, predicted: one layer of the source is timed on this machine, and scaled.

A pass through a layer takes a constant, in which its weights are dequantized, and a time per token. Rounding a matrix
takes a constant, of error feedback a factor of its moments, and a time per row. Each is read from two samples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sprat.export.quality.budget import Tensors
from sprat.export.quality.candidates import STEPS
from sprat.export.quality.measuring.layer_pass import DENSE_BYTES, LayerPass, Replaced, layer_prefix
from sprat.export.quality.measuring.measure import PROBES, SAMPLE_ROWS
from sprat.export.quality.measuring.statistics import MomentsRecorder
from sprat.export.quality.measuring.taps import RecordingKernels
from sprat.quant.formats import get_format
from sprat.quant.round.rounding import round_matrix
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.weights import WeightSource
from sprat.text import human_seconds

__all__ = ["QualityTime", "Reading", "quality_time"]

_TOKENS = (64, 576)  # with fewer, products with an expert's few tokens take longer for each
_ROWS = (32, 288)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a level reads, and does.

    Attributes:
        calibration: tokens of the text.
        probes: tokens of the probes; 0 where nothing is measured.
        evaluation: tokens that the steps are compared on; 0 where they are not.
        steps: rounding, of :data:`~sprat.export.quality.candidates.STEPS`.
    """

    calibration: int
    probes: int
    evaluation: int
    steps: Sequence[str]


@dataclass(frozen=True, slots=True)
class QualityTime:
    """Seconds that a level adds to an export, by part."""

    measuring_s: float
    rounding_s: float
    comparing_s: float

    @property
    def total_s(self) -> float:
        """The sum."""
        return self.measuring_s + self.rounding_s + self.comparing_s

    def text(self) -> str:
        """In words: ``about 12 min (measuring 5 min, rounding 6 min, comparing 1 min)``."""
        named = {"measuring": self.measuring_s, "rounding": self.rounding_s, "comparing": self.comparing_s}
        parts = ", ".join(f"{name} {human_seconds(value)}" for name, value in named.items() if value)
        return f"about {human_seconds(self.total_s)} ({parts})"


def quality_time(spec: ModelSpec, weights: WeightSource, tensors: Tensors, reading: Reading) -> QualityTime:
    """Time the last layer, which is of the kind of most, and scale.

    Args:
        spec: the architecture.
        weights: the source's weights.
        tensors: shapes and choices.
        reading: what the level reads.
    """
    work = _Work(spec, weights, tensors)
    if not work.n_matrices:
        return QualityTime(0.0, 0.0, 0.0)
    passed = work.passes(records=bool(reading.probes)).of(reading.calibration) * work.n_layers
    rounded = {step: work.rounded(step) for step in {*reading.steps, *(["search"] if reading.probes else [])}}
    measuring = comparing = 0.0
    if reading.probes:
        probing = _probe_passes(spec, work) * reading.probes * work.passes().per_unit
        measuring = passed + probing + rounded["search"] * (len(PROBES) + work.sampled_share)
    if reading.evaluation:
        head = spec.vocab_size * spec.hidden_size / work.layer_weights
        comparing = (1 + len(reading.steps)) * (work.n_layers + head) * work.passes().of(reading.evaluation)
    return QualityTime(measuring, sum(passed + rounded[step] for step in reading.steps), comparing)


def _probe_passes(spec: ModelSpec, work: _Work) -> float:
    """How often the tokens of the probes run through a layer, as :class:`~.measuring.probes.Probes` does it.

    Before layer ``l`` there are ``1 + 2 * l`` probes, on average as many as there are layers. A layer starts with its
    exact output, one sublayer for each matrix alone, both sublayers with all, and the MLP after the attention.
    """
    return len(PROBES) * work.n_layers * (spec.n_layers + 2.5 + work.n_matrices / 2)


@dataclass(frozen=True, slots=True)
class _Line:
    """Seconds of ``n`` units: ``fixed + n * per_unit``."""

    fixed: float
    per_unit: float

    @classmethod
    def timed(cls, call: Callable[[int], object], sizes: Sequence[int]) -> _Line:
        """From two calls."""
        spent = [_seconds(call, size) for size in sizes]
        slope = max(0.0, spent[1] - spent[0]) / max(1, sizes[1] - sizes[0])
        return cls(max(0.0, spent[1] - slope * sizes[1]), slope)

    def of(self, n: float) -> float:
        return self.fixed + n * self.per_unit


def _seconds(call: Callable[[int], object], size: int) -> float:
    """The shorter of two runs: the first one reads the weights from storage, and other programs run, too."""
    spent = []
    for _ in range(2):
        started = time.perf_counter()
        call(size)
        spent.append(time.perf_counter() - started)
    return min(spent)


class _Work:
    """What there is to do, and how long a part of it takes."""

    def __init__(self, spec: ModelSpec, weights: WeightSource, tensors: Tensors) -> None:
        self._spec, self._weights, self._shapes = spec, weights, tensors.shapes
        self._names, self._layer = list(tensors.choices), spec.n_layers - 1
        self._in_layer = [name for name in self._names if name.startswith(layer_prefix(self._layer))]
        n_formats = sum(len(formats) * tensors.shapes[name][-1] for name, formats in tensors.choices.items())
        self.sampled_share = SAMPLE_ROWS * n_formats / max(1, self._count(self._names))
        self.n_matrices = len(self._in_layer)
        self.layer_weights = max(1, self._count(self._in_layer))
        self.n_layers = self._count([n for n in self._names if n.startswith("blk.")]) / self.layer_weights
        self._passes: dict[bool, _Line] = {}

    def _count(self, names: Sequence[str]) -> int:
        return sum(math.prod(self._shapes[name]) for name in names)

    def passes(self, *, records: bool = False) -> _Line:
        """Through one layer, by tokens; with the second moments of its inputs, if it ``records``."""
        if records not in self._passes:
            self._passes[records] = self._timed_passes(records=records)
        return self._passes[records]

    def _timed_passes(self, *, records: bool) -> _Line:
        def run(n_tokens: int) -> None:
            tokens = np.arange(n_tokens, dtype=np.int32) % self._spec.vocab_size
            layers, kernels = LayerPass(self._spec, self._weights, [tokens]), ReferenceKernels(DENSE_BYTES)
            block = layers.block(self._layer, Replaced(self._weights, {}))
            shown = RecordingKernels(kernels, MomentsRecorder()) if records else kernels
            layers.run(block, layers.embed(ReferenceKernels(0)), shown)

        return _Line.timed(run, _TOKENS)

    def rounded(self, step: str) -> float:
        """Seconds to round all tensors, each as the one of the timed layer with the nearest width."""
        by_width = {self._shapes[name][-1]: name for name in self._in_layer}
        lines = {width: self._line(name, step) for width, name in by_width.items()}
        total = 0.0
        for name in self._names:
            *parts, rows, width = self._shapes[name]
            nearest = min(lines, key=lambda known: abs(math.log(known / width)))
            grown = width / nearest
            total += math.prod(parts) * (lines[nearest].fixed * grown**3 + rows * lines[nearest].per_unit * grown**2)
        return total

    def _line(self, name: str, step: str) -> _Line:
        weight = self._weights.weight(name)
        matrix = weight if len(weight.shape) == 2 else weight[0]
        sample = matrix.format.dequantize(matrix.packed[: _ROWS[1]])
        width = matrix.shape[-1]
        moments = np.eye(width, dtype=np.float32) if STEPS[step].feedback else np.ones(width, np.float32)
        format = next(get_format(each) for each in ("Q4_K", "Q5_0") if get_format(each).divides(matrix.shape[-1]))
        sizes = [min(rows, len(sample)) for rows in _ROWS]
        return _Line.timed(lambda rows: round_matrix(sample[:rows], moments, format, STEPS[step]), sizes)
