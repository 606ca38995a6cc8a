"""The steps of rounding as whole models in memory, compared on the evaluation text; each is taken only if it pays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sprat.arrays import F32Array, I32Array, U8Array
from sprat.export.quality.measuring.layer_pass import LayerPass, Replaced
from sprat.export.quality.measuring.score import Score, difference, score
from sprat.export.quality.rounder import Rounder
from sprat.progress import Progress, ReportProgress
from sprat.quant.formats import BlockFormat
from sprat.quant.round.rounding import Effort
from sprat.runtime.arch.spec import ModelSpec
from sprat.runtime.files.bundle import QualityStep
from sprat.runtime.weights import Weight, WeightSource

__all__ = ["STEPS", "Compared", "Rounded", "compare", "round_all"]

_ERRORS = 2.0  # standard errors beyond which a step pays
STEPS = {"search": Effort(feedback=False), "feedback": Effort(passes=0), "descent": Effort(passes=3)}
"""The steps of rounding, each with more effort than the one before."""

Rounded = dict[str, Weight]


@dataclass(frozen=True, slots=True)
class Compared:
    """The step that was taken, and all that were tried."""

    name: str
    weights: Rounded
    score: Score
    steps: tuple[QualityStep, ...]


def round_all(
    spec: ModelSpec,
    weights: WeightSource,
    sequences: Sequence[I32Array],
    head_moments: F32Array | None,
    formats: Mapping[str, BlockFormat],
    step: str,
    progress: ReportProgress,
) -> Rounded:
    """Every tensor of ``formats`` rounded by a step of :data:`STEPS`."""
    rounder = Rounder(spec, weights, sequences, head_moments, STEPS[step])
    rounded: Rounded = {}
    for number, (name, format) in enumerate(formats.items()):
        progress(Progress(number, len(formats), f"{step}: {name}"))
        shape = weights.weight(name).shape
        rounded[name] = Weight(name, format, shape, _packed(rounder.round(name, format), shape))
    return rounded


def compare(layers: LayerPass, candidates: Mapping[str, Rounded]) -> Compared:
    """Score the candidates, and take each in turn only if it is better than the one taken before.

    Args:
        layers: the source, and the sequences of the evaluation text.
        candidates: name -> rounded tensors, in the order of their steps.
    """
    scores = score(layers, {name: Replaced(layers.weights, found) for name, found in candidates.items()})
    taken, passed = next(iter(candidates)), set()
    for name in candidates:
        gain, error = difference(scores[taken], scores[name])
        if name == taken or gain > _ERRORS * error:
            taken = name
            passed.add(name)
    steps = tuple(_step(name, scores[name], name in passed) for name in candidates)
    return Compared(taken, candidates[taken], scores[taken], steps)


def _step(name: str, found: Score, taken: bool) -> QualityStep:
    return QualityStep(
        name=name, kld=found.mean, kld_error=found.error, same_top=float(found.same_top.mean()), taken=taken
    )


def _packed(packed: U8Array, shape: Iterable[int]) -> U8Array:
    *rows, _ = shape
    return packed.reshape(*rows, -1)
