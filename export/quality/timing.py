"""Predicted time of a calibrated export: one layer of the source is timed on this machine, and scaled.

A pass through a layer takes a constant, in which its weights are dequantized, and a time per token: a first pass and a
second one tell them apart. Rounding a matrix takes a constant, of error feedback a factor of its moments, and a time
per row, read from two samples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sprat.arrays import F32Array
from sprat.export.quality.budget import Tensors
from sprat.export.quality.candidates import STEPS
from sprat.export.quality.measuring.layer_pass import DENSE_BYTES, LayerPass, Replaced, layer_prefix
from sprat.export.quality.measuring.measure import PROBES, SAMPLE_ROWS
from sprat.export.quality.measuring.statistics import MomentsRecorder
from sprat.export.quality.measuring.taps import RecordingKernels
from sprat.quant.formats import BlockFormat, get_format
from sprat.quant.round.rounding import output_error, round_matrix
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.weights import WeightSource
from sprat.text import human_seconds

__all__ = ["QualityTime", "Reading", "quality_time"]

_TOKENS = 512  # with fewer, products with an expert's few tokens take longer for each
_ROWS = (32, 544)
_RUNS, _ENOUGH_S = 5, 1.0  # of one sample, the shortest counts; so many, or as long


@dataclass(frozen=True, slots=True)
class Reading:
    """Tokens that a level reads, and its steps.

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
        probing = len(PROBES) * _probing(spec, work, reading.probes)
        measuring = passed + probing + rounded["search"] * len(PROBES) + work.errors()
    if reading.evaluation:
        head = spec.vocab_size * spec.hidden_size / work.layer_weights
        comparing = (1 + len(reading.steps)) * (work.n_layers + head) * work.passes().of(reading.evaluation)
    return QualityTime(measuring, sum(passed + rounded[step] for step in reading.steps), comparing)


def _probing(spec: ModelSpec, work: _Work, n_tokens: int) -> float:
    """Seconds of the passes of one probed format, as :class:`~.measuring.probes.Probes` makes them.

    Before layer ``l`` there are ``1 + 2 * l`` probes, on average as many as there are layers. A layer starts with its
    exact output, one sublayer for each matrix alone, both sublayers with all, and the MLP after the attention; its
    rounded matrices are dequantized twice.
    """
    n_passes, line = spec.n_layers * (spec.n_layers + 2.5 + work.n_matrices / 2), work.passes()
    return n_passes * n_tokens * line.per_unit + 2 * work.n_layers * line.fixed


@dataclass(frozen=True, slots=True)
class _Line:
    """Seconds of ``n`` units: ``fixed + n * per_unit``."""

    fixed: float
    per_unit: float

    @classmethod
    def timed(cls, call: Callable[[int], object], sizes: Sequence[int]) -> _Line:
        """The line through two timed calls."""
        spent = [_seconds(call, size) for size in sizes]
        slope = max(0.0, spent[1] - spent[0]) / max(1, sizes[1] - sizes[0])
        return cls(max(0.0, spent[1] - slope * sizes[1]), slope)

    def of(self, n: float) -> float:
        return self.fixed + n * self.per_unit


def _seconds(call: Callable[[int], object], size: int) -> float:
    """The shortest of some runs: the first one reads the weights from storage, and other programs run, too."""
    spent: list[float] = []
    while len(spent) < _RUNS and sum(spent) < _ENOUGH_S:
        started = time.perf_counter()
        call(size)
        spent.append(time.perf_counter() - started)
    return min(spent)


class _Work:
    """Amount of work, and the time of a sample of it."""

    def __init__(self, spec: ModelSpec, weights: WeightSource, tensors: Tensors) -> None:
        self._spec, self._weights, self._shapes = spec, weights, tensors.shapes
        self._names, self._layer = list(tensors.choices), spec.n_layers - 1
        self._in_layer = [name for name in self._names if name.startswith(layer_prefix(self._layer))]
        self._n_formats = {name: len(formats) for name, formats in tensors.choices.items()}
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
        tokens = np.arange(_TOKENS, dtype=np.int32) % self._spec.vocab_size
        layers = LayerPass(self._spec, self._weights, [tokens])
        x = layers.embed(ReferenceKernels(0))

        def first(_n_tokens: int) -> Callable[[int], None]:
            kernels = ReferenceKernels(DENSE_BYTES)
            block = layers.block(self._layer, Replaced(self._weights, {}))
            shown = RecordingKernels(kernels, MomentsRecorder()) if records else kernels
            layers.run(block, x.copy(), shown)
            return lambda _n_tokens: layers.run(block, x.copy(), shown)

        both, again = _seconds(first, _TOKENS), _seconds(first(_TOKENS), _TOKENS)
        return _Line(max(0.0, both - again), again / _TOKENS)

    def rounded(self, step: str) -> float:
        """Seconds to round all tensors, each as the one of the timed layer with the nearest width."""
        lines = {width: self._line(name, step) for width, name in self._by_width.items()}
        total = 0.0
        for name in self._names:
            *parts, rows, width = self._shapes[name]
            nearest = _nearest(lines, width)
            grown = width / nearest
            total += math.prod(parts) * (lines[nearest].fixed * grown**3 + rows * lines[nearest].per_unit * grown**2)
        return total

    def errors(self) -> float:
        """Seconds to measure the errors of all formats on a sample of each tensor's rows."""
        spent = {width: self._error(name) for width, name in self._by_width.items()}
        return sum(
            n_formats * spent[nearest] * (width / nearest) ** 2
            for name, n_formats in self._n_formats.items()
            for width in self._shapes[name][-1:]
            for nearest in [_nearest(spent, width)]
        )

    @property
    def _by_width(self) -> dict[int, str]:
        return {self._shapes[name][-1]: name for name in self._in_layer}

    def _error(self, name: str) -> float:
        sample, format = self._sample(name)
        moments = np.eye(sample.shape[1], dtype=np.float32)

        def measured(n_rows: int) -> float:
            packed = round_matrix(sample[:n_rows], moments, format, STEPS["search"])
            return output_error(sample[:n_rows], packed, moments, format)

        return _seconds(measured, min(SAMPLE_ROWS, len(sample)))

    def _line(self, name: str, step: str) -> _Line:
        sample, format = self._sample(name)
        width = sample.shape[1]
        moments = np.eye(width, dtype=np.float32) if STEPS[step].feedback else np.ones(width, np.float32)
        sizes = [min(rows, len(sample)) for rows in _ROWS]
        return _Line.timed(lambda rows: round_matrix(sample[:rows], moments, format, STEPS[step]), sizes)

    def _sample(self, name: str) -> tuple[F32Array, BlockFormat]:
        """Rows of a matrix, and a format that divides them."""
        weight = self._weights.weight(name)
        matrix = weight if len(weight.shape) == 2 else weight[0]
        format = next(get_format(each) for each in ("Q4_K", "Q5_0") if get_format(each).divides(matrix.shape[-1]))
        return matrix.format.dequantize(matrix.packed[: _ROWS[1]]), format


def _nearest(widths: Iterable[int], width: int) -> int:
    return min(widths, key=lambda known: abs(math.log(known / width)))
