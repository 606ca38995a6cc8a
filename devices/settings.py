"""How to run a model on a device: what ``Engine.load(device=...)`` takes from a plan."""

from __future__ import annotations

from dataclasses import dataclass

from sprat.devices.predict import Predictor

__all__ = ["RunSettings", "prefill_batch"]

_BATCHES = (512, 256, 128, 64, 32)  # mixtures gain most from many tokens: each expert is read once for all of them
_PATIENCE_S = 2.0  # the longest pass: cancel and timeout take effect between passes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What the engine may choose.

    Attributes:
        n_threads: one per core that is worth it.
        context: tokens that prompt and answer may hold together.
        batch: tokens of a prompt in one pass.
        cache: what a number of the cache is kept as.
    """

    n_threads: int
    context: int
    batch: int
    cache: str


def prefill_batch(predictor: Predictor) -> int:
    """The most tokens of a prompt whose pass is predicted to end before a user who cancels loses patience.

    Where experts come from storage, every pass reads nearly all of them, so that only few and long ones make sense.
    """
    if predictor.held < 1:
        return _BATCHES[0]
    return next((size for size in _BATCHES if predictor.prefill(size).total_s <= _PATIENCE_S), _BATCHES[-1])
