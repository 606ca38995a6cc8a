"""Statistics of benchmarks: percentiles, relative standard deviation, and the confidence interval of a speedup."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sprat.devices.bench.results import Percentiles

__all__ = ["Ratio", "percentiles", "ratio_interval", "spread", "student_t_quantile"]

_MAX_POWER = 709.0  # e ** 709.8 is the largest float


@dataclass(frozen=True, slots=True)
class Ratio:
    """A speedup with the ends of its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval does not contain 1."""
        return not self.low <= 1.0 <= self.high


def percentiles(milliseconds: Sequence[float]) -> Percentiles | None:
    """Median, 99th percentile (nearest rank) and maximum; ``None`` if there are no values."""
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
    """Standard deviation divided by mean; 0 for a single value."""
    return statistics.stdev(samples) / statistics.mean(samples) if len(samples) > 1 else 0.0


def ratio_interval(faster: Sequence[float], slower: Sequence[float], confidence: float = 0.95) -> Ratio:
    """Ratio of the geometric means ``faster / slower`` with Welch's interval on the logarithms.

    On logarithms the ratio becomes a difference, and speeds of repeated runs are closer to log-normal than to normal.
    Welch (Biometrika 34, 1947) allows different variances and sample sizes.

    Args:
        faster: tokens per second, at least two samples.
        slower: samples of the baseline, at least two.
        confidence: confidence level, for example 0.95.
    """
    logs = [[math.log(value) for value in side] for side in (faster, slower)]
    difference = statistics.mean(logs[0]) - statistics.mean(logs[1])
    variances = [statistics.variance(side) / len(side) for side in logs]
    error = math.sqrt(sum(variances))
    freedom = sum(v * v / (len(side) - 1) for v, side in zip(variances, logs, strict=True))
    if not freedom:  # both variances are 0
        return Ratio(_exp(difference), _exp(difference), _exp(difference))
    margin = student_t_quantile((1 + confidence) / 2, error**4 / freedom) * error
    return Ratio(_exp(difference), _exp(difference - margin), _exp(difference + margin))


def _exp(power: float) -> float:
    """``e ** power``; infinite beyond the largest float, as the interval of two samples that differ widely can be."""
    return math.exp(power) if power < _MAX_POWER else math.inf


def student_t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t with ``freedom`` degrees of freedom, for a ``probability`` of at least 0.5.

    With ``t = sqrt(freedom) * tan(angle)`` the density is a constant times ``cos(angle) ** (freedom - 1)``
    (Abramowitz and Stegun 26.7). It decreases from angle 0 on, so that Newton's method does not overshoot.
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
