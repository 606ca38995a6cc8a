"""The plan of a calibrated export: measure, allocate, round, compare.

A model of up to :data:`MAX_COMPARED` weights is rounded in memory by every step, and the steps are compared with the
source on the evaluation text, or on a part of the user's text that calibration does not read. A larger one is rounded
while it is written, by the steps that paid for other models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sprat.arrays import I32Array, U8Array
from sprat.errors import InputError
from sprat.export.calibration import calibration_and_evaluation, calibration_sequences, with_packaged
from sprat.export.quality.budget import (
    Allocation,
    Cost,
    Tensors,
    allocated_formats,
    check_target,
)
from sprat.export.quality.candidates import STEPS, Compared, Rounded, compare, round_all
from sprat.export.quality.fast import fast_allocation, fast_recipe, glance
from sprat.export.quality.flat import FlatRounding
from sprat.export.quality.imatrix import write_imatrix
from sprat.export.quality.measuring.layer_pass import LayerPass
from sprat.export.quality.measuring.measure import measure
from sprat.export.quality.measuring.measurements import Measurements
from sprat.export.quality.measuring.store import (
    load_measurements,
    measurements_digest,
    measurements_path,
    save_measurements,
)
from sprat.export.quality.measuring.unfinished import Unfinished
from sprat.export.quality.options import QualityOptions
from sprat.export.quality.rounder import Rounder
from sprat.export.quality.speed import allocate_for
from sprat.export.quality.timing import QualityTime, Reading, quality_time
from sprat.export.quality.within import smallest_expected, smallest_measured
from sprat.export.source.checkpoint import Checkpoint
from sprat.export.write.rounding import Rounding
from sprat.progress import Progress, ReportProgress, no_progress
from sprat.quant.formats import BlockFormat
from sprat.quant.recipe import Recipe
from sprat.runtime.files.bundle import QualityReport

__all__ = [
    "MAX_COMPARED",
    "QualityPlan",
    "QualityPlanner",
    "measure_source",
]

MAX_COMPARED = 500_000_000
"""Weights of a model whose candidates fit into memory."""

_PROBE_TOKENS = {"balanced": 768, "best": 1536}
_STEPS = {"balanced": ("search", "feedback"), "best": ("search", "feedback", "descent")}
_KEPT = 2  # tensors: gate and up of a layer's experts are read in turn


@dataclass(frozen=True, slots=True)
class QualityPlan:
    """Recipe and rounding for the writers.

    Attributes:
        recipe: the formats.
        rounding: rounds the allocated tensors.
        report: for the manifest.
    """

    recipe: Recipe
    rounding: Rounding
    report: QualityReport


@dataclass(frozen=True, slots=True)
class _InMemory:
    """Tensors that were rounded already."""

    digest: str
    weights: Rounded

    def has(self, name: str) -> bool:
        """Whether the tensor was rounded."""
        return name in self.weights

    def round(self, name: str, format: BlockFormat) -> U8Array:
        """The packed rows of the tensor."""
        weight = self.weights[name]
        return weight.packed.reshape(-1, weight.packed.shape[-1])


@dataclass(frozen=True, slots=True)
class _Streamed:
    """Tensors that are rounded when they are written; the last two are kept, since a writer reads chunks of them."""

    digest: str
    names: frozenset[str]
    rounder: Rounder
    kept: dict[str, U8Array] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether the tensor is rounded."""
        return name in self.names

    def round(self, name: str, format: BlockFormat) -> U8Array:
        """The packed rows of the tensor."""
        if name not in self.kept:
            if len(self.kept) == _KEPT:
                del self.kept[next(iter(self.kept))]
            packed = self.rounder.round(name, format)
            self.kept[name] = packed.reshape(-1, packed.shape[-1])
        return self.kept[name]


def measure_source(
    checkpoint: Checkpoint, sequences: Sequence[I32Array], level: str, progress: ReportProgress = no_progress
) -> Measurements:
    """Measure a source, or read what an earlier call of the same source, text and level kept.

    Args:
        checkpoint: the source.
        sequences: token ids of the calibration text.
        level: ``balanced`` or ``best``.
        progress: called after each layer.
    """
    formats, n_probes = allocated_formats(), _enough(sequences, _PROBE_TOKENS[level])
    path = measurements_path(measurements_digest(checkpoint.content_hash(), sequences, formats, f"{n_probes} probes"))
    if found := load_measurements(path):
        return found
    found = measure(
        checkpoint.spec,
        checkpoint,
        sequences,
        formats,
        n_probes=n_probes,
        effort=STEPS["search"],
        progress=progress,
        unfinished=Unfinished(path.with_suffix(".unfinished.npz")),
    )
    save_measurements(path, found)
    return found


@dataclass(slots=True)
class QualityPlanner:
    """Chooses formats and codes for the least divergence in the wanted bytes.

    Args:
        checkpoint: the source.
        recipe: what the export would do without calibration; its size is the target where none is given, and the
            tensors of its rules keep their formats.
        options: level, target and text.
        tokenizer: the ``tokenizer.*`` keys.
        file_size: bytes of the file under a recipe.

    Raises:
        InputError: a text file cannot be read as UTF-8, the text is too short, the model is too large for ONNX, or
            no file of it is as small as the target.
        TokenizerError: the level measures, and the model has no tokenizer.
    """

    checkpoint: Checkpoint
    recipe: Recipe
    options: QualityOptions
    tokenizer: Mapping[str, Any]
    file_size: Callable[[Recipe], int]
    progress: ReportProgress = no_progress
    tensors: Tensors = field(init=False)
    text: list[I32Array] = field(init=False)

    def __post_init__(self) -> None:
        files, is_fast = self.options.calibration, self.options.level == "fast"
        self.tensors = Tensors.of(self.checkpoint.shapes, self.recipe, self.options.file_format)
        check_target(self.tensors, self.options.target, self._size)
        self.text = glance(self.tokenizer) if is_fast else calibration_sequences(self.tokenizer, files)
        if self.options.file_format == "onnx" and self.tensors.n_weights > MAX_COMPARED:
            raise InputError(
                f"--format onnx with --quality holds the rounded model in memory: {self.tensors.n_weights / 1e6:,.0f}M "
                f"weights, expected at most {MAX_COMPARED / 1e6:.0f}M; write a GGUF"
            )

    def plan(self, progress: ReportProgress = no_progress) -> QualityPlan:
        """Measure, allocate, round and compare, as the level asks; ``progress`` is called in between.

        Raises:
            InputError: no size reaches the wanted divergence.
        """
        self.progress = progress
        return self._fast() if self.options.level == "fast" else self._calibrated()

    def expected_time(self) -> QualityTime:
        """Predicted time of :meth:`plan` and of the rounding of its tensors on this machine; one layer is timed."""
        return quality_time(self.checkpoint.spec, self.checkpoint, self.tensors, self._reading())

    def digest(self) -> str:
        """SHA-256 of everything that decides formats and codes; reads no weight beyond the source's hash."""
        options, recipe = self.options, self.recipe
        rules = " ".join(map(str, recipe.rules))
        request = f"{options.level} {options.target} {options.file_format} {recipe.name} {rules}"
        if options.speed_weight:
            request += f" {options.speed_weight} {options.device}"
        return measurements_digest(self.checkpoint.hash(), self.text, allocated_formats(), request)

    def _texts(self) -> tuple[Sequence[I32Array], Sequence[I32Array]]:
        is_own = bool(self.options.calibration)
        kept, held_out = calibration_and_evaluation(self.text, self.tokenizer, is_own=is_own)
        return with_packaged(kept, self.tokenizer) if is_own else kept, held_out

    def _reading(self) -> Reading:
        """Tokens that the level reads, and its steps."""
        level = self.options.level
        if level == "fast":
            return Reading(_n_tokens(self.text), 0, 0, ("search",))
        sequences, held_out = self._texts()
        probed = sequences[: _enough(sequences, _PROBE_TOKENS[level])]
        if self.tensors.n_weights > MAX_COMPARED:
            return Reading(_n_tokens(sequences), _n_tokens(probed), 0, _STEPS[level][-1:])
        return Reading(_n_tokens(sequences), _n_tokens(probed), _n_tokens(held_out), _STEPS[level])

    def _fast(self) -> QualityPlan:
        """Allocate by packaged costs; search scales, weighted by the inputs that a glance at the text shows."""
        spec, names, digest = self.checkpoint.spec, frozenset(self.tensors.choices), self.digest()
        allocation, text = fast_allocation(spec, self.tensors, self.recipe, self.options, self.file_size), self.text
        rounding: Rounding = FlatRounding(digest, names, self.checkpoint)
        if text and self.options.file_format == "onnx":  # its writer reads rows in chunks
            formats = {name: allocation.formats[name] for name in self.tensors.choices}
            weights = round_all(spec, self.checkpoint, text, None, formats, "search", self.progress)
            rounding = _InMemory(digest, weights)
        elif text:
            rounding = _Streamed(digest, names, Rounder(spec, self.checkpoint, text, None, STEPS["search"]))
        report = QualityReport(
            level="fast",
            digest=digest,
            calibration_tokens=_n_tokens(text),
            rounding="search",
            expected_kld=None,
            notes=() if text else ("the model has no tokenizer: all inputs count alike",),
        )
        return QualityPlan(fast_recipe(allocation, self.tensors, self.recipe, self.options), rounding, report)

    def _calibrated(self) -> QualityPlan:
        """Measure, allocate, round."""
        sequences, held_out = self._texts()
        measured, limit = self._measure(sequences), self.options.target.max_kld

        def cost(name: str, format: BlockFormat) -> float:
            return measured.cost(name, format.name)

        if self.tensors.n_weights > MAX_COMPARED:
            chosen = self._allocate(cost) if limit is None else smallest_expected(self.tensors, cost, limit)
            return self._streamed(chosen, measured, sequences)
        evaluation = LayerPass(self.checkpoint.spec, self.checkpoint, held_out)

        def compared_files(allocation: Allocation) -> Compared:
            return self._compare(allocation, measured, sequences, evaluation)

        if limit is None:
            allocation = self._allocate(cost)
            compared = compared_files(allocation)
        else:
            allocation, compared = smallest_measured(self.tensors, cost, limit, compared_files)
        rounding = _InMemory(self.digest(), compared.weights)
        report = self._report(rounding.digest, measured, compared.name, allocation, compared)
        return QualityPlan(allocation.recipe(self.options.level, self.tensors), rounding, report)

    def _measure(self, sequences: Sequence[I32Array]) -> Measurements:
        measured = measure_source(self.checkpoint, sequences, self.options.level, self.progress)
        if self.options.imatrix_out is not None:
            in_layers = {name: rows for name, rows in measured.mean_squares.items() if name.startswith("blk.")}
            write_imatrix(self.options.imatrix_out, in_layers, measured.n_tokens, "sprat calibration")
        return measured

    def _allocate(self, cost: Cost) -> Allocation:
        return allocate_for(self.checkpoint.spec, self.tensors, cost, self.recipe, self.options, self._size)

    def _size(self, allocation: Allocation) -> int:
        return self.file_size(allocation.recipe(self.options.level, self.tensors))

    def _compare(
        self,
        allocation: Allocation,
        measured: Measurements,
        sequences: Sequence[I32Array],
        evaluation: LayerPass,
    ) -> Compared:
        assert measured.head_moments is not None, "measure() sets them"
        formats = {name: allocation.formats[name] for name in self.tensors.choices}
        candidates = {
            step: round_all(
                self.checkpoint.spec,
                self.checkpoint,
                sequences,
                measured.head_moments,
                formats,
                step,
                self.progress,
            )
            for step in _STEPS[self.options.level]
        }
        self.progress(Progress(0, 1, "comparing"))
        return compare(evaluation, candidates)

    def _streamed(self, allocation: Allocation, measured: Measurements, sequences: Sequence[I32Array]) -> QualityPlan:
        assert measured.head_moments is not None, "measure() sets them"
        step = _STEPS[self.options.level][-1]
        rounder = Rounder(self.checkpoint.spec, self.checkpoint, sequences, measured.head_moments, STEPS[step])
        rounding = _Streamed(self.digest(), frozenset(self.tensors.choices), rounder)
        report = self._report(rounding.digest, measured, step, allocation, None)
        return QualityPlan(allocation.recipe(self.options.level, self.tensors), rounding, report)

    def _report(
        self, digest: str, measured: Measurements, step: str, allocation: Allocation, compared: Compared | None
    ) -> QualityReport:
        notes = [] if compared else [f"steps were not compared: above {MAX_COMPARED / 1e6:.0f}M weights"]
        if self.options.target.max_kld is not None and not compared:
            notes.append("--max-kld went by the expected divergence, which was not measured on this file")
        unseen = {name: tokens.count(0) for name, tokens in measured.expert_tokens.items() if 0 in tokens}
        if unseen:
            count, total = max(unseen.values()), len(next(iter(measured.expert_tokens.values())))
            notes.append(f"up to {count} of {total} experts of a layer saw no token of the calibration text")
        return QualityReport(
            level=self.options.level,
            digest=digest,
            calibration_tokens=measured.n_tokens,
            rounding=step,
            expected_kld=allocation.cost,
            steps=compared.steps if compared else (),
            notes=tuple(notes),
        )


def _n_tokens(sequences: Sequence[I32Array]) -> int:
    return sum(map(len, sequences))


def _enough(sequences: Sequence[I32Array], n_tokens: int) -> int:
    """Number of sequences, from the first, that have ``n_tokens`` together."""
    reached = np.cumsum([len(sequence) for sequence in sequences]) >= n_tokens
    return int(reached.argmax()) + 1 if reached.any() else len(sequences)
