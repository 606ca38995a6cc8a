"""The few statistics that a benchmark needs: percentiles, spread, and the interval of a ratio of two speeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sprat.devices.bench.results import Percentiles

__all__ = ["Ratio", "percentiles", "ratio_interval", "spread", "student_t_quantile"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster, with the ends of its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether 1 lies outside of the interval."""
        return not self.low <= 1.0 <= self.high


def percentiles(milliseconds: Sequence[float]) -> Percentiles | None:
    """Median, 99th percentile (nearest rank) and worst of some times; ``None`` of none."""
    if not milliseconds:
        return None
    ranked = sorted(milliseconds)
    return Percentiles(
        n=len(ranked),
        p50=statistics.median(ranked),
        p99=ranked[math.ceil(0.99 * len(ranked)) - 1],
        worst=ranked[-1],
    )


def spread(samples: Sequence[float]) -> float:
    """Standard deviation of a sample as a share of its mean; 0 of a single number."""
    return statistics.stdev(samples) / statistics.mean(samples) if len(samples) > 1 else 0.0


def ratio_interval(faster: Sequence[float], slower: Sequence[float], confidence: float = 0.95) -> Ratio:
    """Ratio of the geometric means ``faster / slower`` with Welch's interval on the logarithms.

    Logarithms make the interval of a ratio one of a difference, and speeds of repeated runs are closer to log-normal
    than to normal; Welch (Biometrika 34, 1947) allows the two sides different spreads and numbers of samples.

    Args:
        faster: tokens per second, at least two samples.
        slower: the same of the other side.
        confidence: of the interval, for example 0.95.
    """
    logs = [[math.log(value) for value in side] for side in (faster, slower)]
    difference = statistics.mean(logs[0]) - statistics.mean(logs[1])
    variances = [statistics.variance(side) / len(side) for side in logs]
    error = math.sqrt(sum(variances))
    freedom = sum(v * v / (len(side) - 1) for v, side in zip(variances, logs, strict=True))
    if not freedom:  # no spread at all
        return Ratio(math.exp(difference), math.exp(difference), math.exp(difference))
    margin = student_t_quantile((1 + confidence) / 2, error**4 / freedom) * error
    return Ratio(math.exp(difference), math.exp(difference - margin), math.exp(difference + margin))


def student_t_quantile(probability: float, freedom: float) -> float:
    """The value that Student's t with ``freedom`` degrees stays below with ``probability``, at least one half.

    With ``t = sqrt(freedom) * tan(angle)`` the density is a constant times ``cos(angle) ** (freedom - 1)``
    (Abramowitz and Stegun 26.7). It falls from angle 0 on, so that Newton's method from there never goes too far.
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    angle, step = 0.0, 1.0
    while step > 1e-9:
        missing = probability - 0.5 - scale * _cosine_power_integral(angle, freedom - 1)
        step = missing / (scale * math.cos(angle) ** (freedom - 1))
        angle += step
    return math.sqrt(freedom) * math.tan(angle)


def _cosine_power_integral(angle: float, power: float, n_steps: int = 400) -> float:
    """The integral of ``cos(x) ** power`` from 0 to ``angle``, by Simpson's rule."""
    step = angle / n_steps
    values = [math.pow(math.cos(index * step), power) for index in range(n_steps + 1)]
    return step / 3 * (values[0] + 4 * sum(values[1:-1:2]) + 2 * sum(values[2:-1:2]) + values[-1])
