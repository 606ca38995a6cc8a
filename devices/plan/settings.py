"""How to run a model on a device: what ``Engine.load(device=...)`` takes from a plan."""

from __future__ import annotations

from dataclasses import dataclass

from sprat.devices.plan.predict import Predictor

__all__ = ["RunSettings", "prefill_batch"]

_BATCHES = (512, 256, 128, 64, 32)  # mixtures gain most from many tokens: each expert is read once for all of them
_PATIENCE_S = 2.0  # for a pass: cancel and timeout take effect between passes
_MOST_SLOWER = 1.25  # a prompt in such passes, against its fastest way


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
    """Tokens of a prompt whose pass is predicted to end before a user who cancels loses patience.

    Where experts come from storage, every pass reads nearly all of them, so that only few and long ones make sense.
    Elsewhere, too, passes are not cut so short that the whole prompt takes much longer.
    """
    if predictor.held < 1:
        return _BATCHES[0]
    times = {size: predictor.prefill(size).total_s for size in _BATCHES}
    fastest = min(seconds / size for size, seconds in times.items())
    bearable = [size for size, seconds in times.items() if seconds / size <= _MOST_SLOWER * fastest]
    return next((size for size in bearable if times[size] <= _PATIENCE_S), bearable[-1])
